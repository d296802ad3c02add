"""Trials that repeat the same choices with other seeds or folds: their means, and which choices are the best."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import mean, median, stdev
from typing import NamedTuple

from thaw.errors import UserError
from thaw.manifest import read_json
from thaw.runs.files import BASELINES_FILE
from thaw.runs.trials import Trial, is_repeat, ranked, varied


class Group(NamedTuple):
    """Finished trials with the same choices, seed and fold aside."""

    choice: str
    """`key=value ...`; empty if only seeds or folds vary."""
    metric: str
    """Name of the monitored metric."""
    trials: list[Trial]

    @property
    def values(self) -> list[float]:
        """The monitored metric of each trial."""
        return [trial.results["best"] for trial in self.trials if trial.results]

    @property
    def mean(self) -> float:
        """Mean of the monitored metric."""
        return mean(self.values)

    @property
    def tested(self) -> list[float]:
        """The same metric on test; empty if nothing was tested."""
        name = name_on_test(self.metric)
        found = [trial.results["metrics"].get(name) for trial in self.trials if trial.results]
        return [value for value in found if value is not None]

    @property
    def seconds(self) -> float:
        """Median time of a trial."""
        return median([trial.results["seconds"] for trial in self.trials if trial.results])


def groups(trials: Sequence[Trial]) -> list[Group]:
    """Finished trials that differ in seed or fold only, together, the best mean first; none if none are repeated."""
    finished = ranked(trials)
    keys = varied(trials)
    found: dict[str, Group] = {}
    for trial in finished:
        assert trial.results is not None
        choice = written(trial, [key for key in keys if not is_repeat(key)])
        found.setdefault(choice, Group(choice, trial.results["monitor"], [])).trials.append(trial)
    if not any(map(is_repeat, keys)) or all(len(group.trials) == 1 for group in found.values()):
        return []
    return sorted(found.values(), key=lambda group: group.mean, reverse=_higher_is_better(finished))


def not_clearly_worse(ordered: Sequence[Group]) -> list[Group]:
    """Groups behind the first one by at most the standard error of the difference of their means."""
    best, *others = ordered
    return [group for group in others if abs(best.mean - group.mean) <= math.hypot(_error(best), _error(group))]


def baselines(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Scores of methods that train no network, by name: one of each seed and fold, of the monitored metric on test.

    None that were measured on another split, or by another metric.
    """
    repeats = [key for key in varied(trials) if is_repeat(key)]
    found: dict[str, dict[str, float]] = {}
    for trial in ranked(trials):
        assert trial.results is not None
        measure = trial.results["monitor"].partition("/")[0]
        with suppress(UserError):
            content = read_json(trial.folder / BASELINES_FILE, dict, "")
            for name, score in content.get(measure, {}).items() if content.get("split") == "test" else ():
                found.setdefault(name, {}).setdefault(written(trial, repeats), score)
    return {name: list(scores.values()) for name, scores in found.items()}


def spread(values: Sequence[float], as_text: Callable[[float], str] = "{:.4f}".format) -> str:
    """The mean, with the standard deviation if there are two values or more; empty if there are none."""
    if not values:
        return ""
    return as_text(mean(values)) + (f" ± {as_text(stdev(values))}" if len(values) > 1 else "")


def written(trial: Trial, keys: Sequence[str]) -> str:
    """A trial's choices of some keys as they are typed."""
    return " ".join(f"{key}={value}" for key, value in trial.choices(keys).items())


def name_on_test(metric: str) -> str:
    """Name of a metric on test: `accuracy/val` becomes `accuracy/test`."""
    return f"{metric.partition('/')[0]}/test"


def _error(group: Group) -> float:
    """Standard error of the mean; 0 of a single trial."""
    return stdev(group.values) / math.sqrt(len(group.values)) if len(group.values) > 1 else 0.0


def _higher_is_better(finished: Sequence[Trial]) -> bool:
    return any(trial.results["mode"] == "max" for trial in finished[:1] if trial.results)
