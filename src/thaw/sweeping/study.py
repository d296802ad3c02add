"""Optuna's part in a search: what the trials so far say about the next one."""

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thaw.errors import UserError
from thaw.runs.trials import UNFINISHED, Trial
from thaw.storage import digest

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial as OptunaTrial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class Study:
    """Suggests the values of trials. It keeps nothing: what is known of a search is in the folders of its trials.

    For each suggestion Optuna is told of the other trials again, and a sampler is made with a seed that follows from
    the search's seed and the trial's number. So a search that was stopped goes on as if it had not been.

    Args:
        space: distributions by key of the configuration.
        sampler: makes one of Optuna's samplers; called with `seed`.
        seed: of the search.
        objectives: max or min by metric, or by "seconds"; empty: the metric that the runs monitor.

    Raises what `sampler` raises.
    """

    def __init__(
        self,
        space: Mapping[str, "BaseDistribution"],
        sampler: Callable[..., "BaseSampler"],
        seed: int,
        objectives: Mapping[str, str],
    ):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.seed, self.objectives = dict(space), seed, dict(objectives)
        self._make_sampler = sampler
        self.sampler(0)  # raises what is wrong with its settings

    def sampler(self, number: int) -> "BaseSampler":
        """A new sampler for one trial."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BruteForceSampler says that its interface may change
            return self._make_sampler(seed=int(digest(f"{self.seed} {number}")[:8], 16))

    @property
    def most_trials(self) -> int:
        """How many trials there can be: of a sampler that tries every combination once, their number.

        Raises:
            UserError: there is no end to them.
        """
        from optuna.samplers import BruteForceSampler

        if not isinstance(self.sampler(0), BruteForceSampler):
            return sys.maxsize
        return math.prod(_size(key, kind) for key, kind in self.space.items())

    def suggest(self, number: int, trials: Sequence[Trial]) -> list[str]:
        """Overrides of trial `number`, from what the other trials gave.

        Raises:
            UserError: a trial has not measured an objective.
        """
        import optuna

        study = optuna.create_study(directions=["minimize"] * max(len(self.objectives), 1))
        for trial in trials:
            study.enqueue_trial(self._values(trial))
            # Asked for all the same, because some samplers (CMA-ES) take notes when they are.
            self._tell(study, self._ask(study, int(trial.name)), trial)
        values = self._ask(study, number).params
        return [f"{key}={_rounded(value, self.space[key])}" for key, value in values.items()]

    def chosen(self, trial: Trial) -> list[str]:
        """Overrides of a trial that the search chose."""
        return [f"{key}={trial.overrides[key]}" for key in self.space]

    def _ask(self, study: "OptunaStudy", number: int) -> "OptunaTrial":
        study.sampler = self.sampler(number)
        return study.ask(self.space)

    def _tell(self, study: "OptunaStudy", asked: "OptunaTrial", trial: Trial) -> None:
        from optuna.trial import TrialState

        if trial.state == UNFINISHED:  # samplers take it for a bad one until it ends
            return
        if trial.results and (values := self.measured(trial)):
            study.tell(asked, values)
        elif trial.pruned and len(self.objectives) < 2:
            value = trial.pruned["value"]
            asked.report(value if trial.pruned["mode"] == "min" else -value, trial.pruned["epoch"])
            study.tell(asked, state=TrialState.PRUNED)
        else:
            study.tell(asked, state=TrialState.FAIL)

    def _values(self, trial: Trial) -> dict[str, Any]:
        """The values of the space in a trial's overrides."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        kinds = {CategoricalDistribution: str, IntDistribution: int}
        return {key: kinds.get(type(kind), float)(trial.overrides[key]) for key, kind in self.space.items()}

    def copy_to(self, storage: str, name: str, trials: Sequence[Trial]) -> None:
        """Write trials that have ended into a database that Optuna's dashboard reads, if they are not there yet."""
        import optuna
        from optuna.study import StudyDirection
        from optuna.trial import TrialState, create_trial

        ended = [trial for trial in trials if trial.state != UNFINISHED and trial.overrides]
        finished = [trial.results for trial in ended if trial.results]
        modes = self.objectives or ({finished[0]["monitor"]: finished[0]["mode"]} if finished else {})
        if not modes:  # nothing is known of what is better
            return
        directions = [StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE for mode in modes.values()]
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        copied = {trial.user_attrs["trial"] for trial in study.trials}
        for trial in ended:
            if trial.name in copied:
                continue
            values = self.measured(trial) if trial.results else []
            values = [-v if mode == "max" else v for v, mode in zip(values, modes.values(), strict=bool(values))]
            state = TrialState.COMPLETE if values else TrialState.PRUNED if trial.pruned else TrialState.FAIL
            study.add_trial(
                create_trial(
                    state=state,
                    values=values or None,
                    params=self._values(trial),
                    distributions=self.space,
                    user_attrs={"trial": trial.name, "message": trial.message},
                )
            )

    def measured(self, trial: Trial) -> list[float]:
        """What a finished trial has of each objective, less is better; empty if the run monitors nothing."""
        assert trial.results is not None
        results = trial.results
        found = {"seconds": results["seconds"], **results["metrics"], results["monitor"]: results["best"]}
        wanted = self.objectives or {results["monitor"]: results["mode"]}
        if absent := [name for name in wanted if name not in found]:
            raise UserError(
                f"{absent[0]}, which the search is to improve, was not measured by trial {trial.name}: it has "
                f"{', '.join(found)}"
            )
        values = [(found[name], mode) for name, mode in wanted.items()]
        return [] if any(value is None for value, _ in values) else [v if mode == "min" else -v for v, mode in values]


def _rounded(value: Any, kind: "BaseDistribution") -> Any:
    """A number with four digits, as people type it, inside its distribution."""
    from optuna.distributions import FloatDistribution

    return min(max(float(f"{value:.4g}"), kind.low), kind.high) if isinstance(kind, FloatDistribution) else value


def _size(key: str, kind: "BaseDistribution") -> int:
    """Number of values of a distribution. Raises UserError if it has no end."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return len(kind.choices)
    if isinstance(kind, FloatDistribution | IntDistribution) and kind.step:
        return int((kind.high - kind.low) / kind.step + 0.5) + 1
    raise UserError(f"{key} has no end of values, and sampler=grid tries all of them: type choice(...) or range(...)")
