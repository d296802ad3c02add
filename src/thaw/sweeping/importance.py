"""How much each choice of a sweep mattered, from the trials alone."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thaw.errors import UserError
from thaw.runs.trials import Trial, is_repeat, ranked, varied

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST_TRIALS = 4
LOG_RATIO = 30
"""Positive numbers count by their logarithm, if the largest is at least so many times the smallest."""


def importance(trials: Sequence[Trial]) -> dict[str, float]:
    """Return the share of the variance of the monitored metric that each choice explains, by key: they sum to 1.

    By functional ANOVA over a random forest that is fitted to the finished trials (Hutter et al. 2014).

    Raises:
        UserError: it cannot be told, and why.
    """
    finished = ranked(trials)
    keys = varied(finished)
    if len(finished) < LEAST_TRIALS:
        raise UserError(f"it needs {LEAST_TRIALS} finished trials, and there are {len(finished)}")
    if all(map(is_repeat, keys)):
        raise UserError("the finished trials differ in no choice, other than a seed or a fold")
    if len({_best(trial) for trial in finished}) == 1:
        raise UserError("all finished trials came to the same value")
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError('it needs Optuna: pip install -e ".[sweep]"') from error
    columns = [distribution([trial.overrides.get(key) for trial in finished]) for key in keys]
    space = {key: kind for key, (kind, _) in zip(keys, columns, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of Optuna say that they may change
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for row, trial in enumerate(finished):
            params = {key: values[row] for key, (_, values) in zip(keys, columns, strict=True)}
            study.add_trial(optuna.create_trial(params=params, distributions=space, value=_best(trial)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def distribution(texts: Sequence[str | None]) -> tuple["BaseDistribution", list[Any]]:
    """Return a distribution that all values of one key fit into, and the values.

    Numbers are ones between the smallest and the largest; of all else each text is a category.

    Args:
        texts: as they were typed; None where a trial does not have the key.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds: tuple[tuple[Any, Any], ...] = ((int, IntDistribution), (float, FloatDistribution))
    for number, kind in kinds:
        try:
            values = [number(text) for text in texts if text is not None]
        except ValueError:
            continue
        if len(values) == len(texts) and all(map(math.isfinite, values)):
            low, high = min(values), max(values)
            return kind(low, high, log=low > 0 and high >= LOG_RATIO * low), values
    categories = ["" if text is None else text for text in texts]
    return CategoricalDistribution(sorted(set(categories))), categories


def _best(trial: Trial) -> float:
    assert trial.results is not None
    return trial.results["best"]
