"""Trials that repeat the same choices with other seeds or folds: their means, and which choices are the best."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import mean, median, stdev
from typing import NamedTuple

from thaw.errors import UserError
from thaw.manifest import naming_damage, read_json
from thaw.runs.files import BASELINES_FILE
from thaw.runs.trials import Trial, is_repeat, ranked, varied

OF_THE_FEATURES = ("backbone", "data", "task")
"""First words of keys on which scores of methods depend that train no network."""


class Group(NamedTuple):
    """Finished trials with the same choices, seed and fold aside."""

    choice: str
    """`key=value ...`; empty if only seeds or folds vary."""
    metric: str
    """Name of the monitored metric."""
    by_repeat: dict[str, Trial]
    """Its trials by seed and fold, the best first."""

    @property
    def trials(self) -> list[Trial]:
        """Its trials, the best first."""
        return list(self.by_repeat.values())

    @property
    def values(self) -> list[float]:
        """The monitored metric of each trial."""
        return [best_of(trial) for trial in self.trials]

    @property
    def mean(self) -> float:
        """Mean of the monitored metric."""
        return mean(self.values)

    @property
    def test_values(self) -> list[float]:
        """The same metric on test; empty if nothing was tested."""
        name = name_on_test(self.metric)
        found = [trial.results["metrics"].get(name) for trial in self.trials if trial.results]
        return [value for value in found if value is not None]

    @property
    def seconds(self) -> float:
        """Median time of a trial."""
        return median([trial.results["seconds"] for trial in self.trials if trial.results])


class MeanRow(NamedTuple):
    """A row of a table of means."""

    name: str
    """Choices, or a method that trains no network."""
    values: Sequence[float]
    """The monitored metric; empty for such a method."""
    test_values: Sequence[float]
    seconds: float | None
    """Median time of a trial."""


def groups(trials: Sequence[Trial]) -> list[Group]:
    """Finished trials that differ in seed or fold only, together, the best mean first; none if none are repeated."""
    finished, keys = ranked(trials), varied(trials)
    repeats = [key for key in keys if is_repeat(key)]
    found: dict[str, Group] = {}
    for trial in finished:
        assert trial.results is not None
        choice = choices_as_typed(trial, [key for key in keys if key not in repeats])
        group = found.setdefault(choice, Group(choice, trial.results["monitor"], {}))
        group.by_repeat.setdefault(choices_as_typed(trial, repeats), trial)
    if not repeats or all(len(group.trials) == 1 for group in found.values()):
        return []
    is_max = any(trial.results["mode"] == "max" for trial in finished[:1] if trial.results)
    return sorted(found.values(), key=lambda group: group.mean, reverse=is_max)


def mean_rows(trials: Sequence[Trial]) -> list[MeanRow]:
    """Rows of the groups, then of methods that train no network; none if no choices are repeated."""
    rows = [
        MeanRow(group.choice or "all trials", group.values, group.test_values, group.seconds)
        for group in groups(trials)
    ]
    return [*rows, *(MeanRow(name, (), scores, None) for name, scores in baselines(trials).items())] if rows else []


def not_clearly_worse(ordered: Sequence[Group]) -> list[Group]:
    """Groups that are behind the first one by at most the standard error of the difference.

    Trials with the same seed and fold are compared, which often share their samples. With fewer than two such pairs
    nothing can be said, so nothing is clearly worse.
    """
    best, *others = ordered
    return [group for group in others if not _is_clearly_worse(group, best)]


def _is_clearly_worse(group: Group, best: Group) -> bool:
    common = best.by_repeat.keys() & group.by_repeat.keys()
    gaps = [best_of(best.by_repeat[repeat]) - best_of(group.by_repeat[repeat]) for repeat in sorted(common)]
    return len(gaps) > 1 and abs(mean(gaps)) > stdev(gaps) / math.sqrt(len(gaps))


def baselines(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Scores of methods that train no network, by name: one of each seed and fold, of the monitored metric on test.

    None if trials have other features or other data, or if they were measured on another split or by another metric.
    """
    keys = varied(trials)
    repeats = [key for key in keys if is_repeat(key)]
    if any(key.split(".")[0] in OF_THE_FEATURES for key in keys if key not in repeats):
        return {}
    found: dict[str, dict[str, float]] = {}
    for trial in ranked(trials):
        assert trial.results is not None
        measure, file = trial.results["monitor"].partition("/")[0], trial.folder / BASELINES_FILE
        with suppress(UserError), naming_damage(file):
            content = read_json(file, dict, "")
            for name, score in content.get(measure, {}).items() if content.get("split") == "test" else ():
                found.setdefault(name, {}).setdefault(choices_as_typed(trial, repeats), float(score))
    return {name: list(scores.values()) for name, scores in found.items()}


def best_of(trial: Trial) -> float:
    """The monitored metric of a finished trial."""
    assert trial.results is not None
    return trial.results["best"]


def spread(values: Sequence[float], as_text: Callable[[float], str] = "{:.4f}".format) -> str:
    """The mean, with the standard deviation if there are two values or more; empty if there are none."""
    if not values:
        return ""
    return as_text(mean(values)) + (f" ± {as_text(stdev(values))}" if len(values) > 1 else "")


def choices_as_typed(trial: Trial, keys: Sequence[str]) -> str:
    """A trial's choices of some keys: `key=value ...`."""
    return " ".join(f"{key}={value}" for key, value in trial.choices(keys).items())


def name_on_test(metric: str) -> str:
    """Name of a metric on test: `accuracy/val` becomes `accuracy/test`."""
    return f"{metric.partition('/')[0]}/test"
