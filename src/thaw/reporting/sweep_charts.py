"""The charts of a sweep, from its trials."""

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from matplotlib.figure import Figure

from thaw.reporting.drawings import picture
from thaw.reporting.history import curves_of
from thaw.reporting.pictures.importance import importance_bars
from thaw.reporting.pictures.learning_curves import Curve
from thaw.reporting.pictures.parallel_coordinates import parallel_coordinates
from thaw.reporting.pictures.pareto import pareto
from thaw.reporting.pictures.trial_curves import trial_curves
from thaw.reporting.report import Picture
from thaw.runs.files import METRICS_CSV, read_rows
from thaw.runs.trials import PRUNED, Trial, best, is_repeat, ranked, varied


def sweep_charts(trials: Sequence[Trial], importance: Mapping[str, float]) -> tuple[list[Picture], list[str]]:
    """Return the charts, and a sentence for each that could not be drawn.

    Args:
        trials: of the sweep.
        importance: share of the variance that each choice explains; empty: it is not drawn.
    """
    draw: dict[str, tuple[str, Callable[[], Figure | None]]] = {
        "choices": ("A line for each trial, from its choices to its result", lambda: choices(trials)),
        "importance": ("Share of the differences in the metric that each choice explains", lambda: _bars(importance)),
        "cost": ("The monitored metric by the time that each trial took", lambda: _cost(trials)),
        "learning": (
            "The monitored metric of each trial while it trained; a head that was fitted at the end may do better",
            lambda: _learning(trials),
        ),
    }
    if all(map(is_repeat, varied(trials))):  # which seed is best, or slow, is chance
        draw = {"learning": draw["learning"]}
    pictures, failures = [], []
    for section, (caption, drawn) in draw.items():
        try:
            if (figure := drawn()) is not None:
                pictures.append(picture(section, caption, figure, section))
        except Exception as error:  # the page without it is better than none
            failures.append(f"A picture was not drawn ({section}): {type(error).__name__}: {error}")
    return pictures, failures


def monitored(trials: Sequence[Trial]) -> tuple[str, str] | None:
    """Name and mode of the monitored metric; None if no trial has told it yet."""
    told = [results for trial in trials if (results := trial.results or trial.pruned)]
    return (told[0]["monitor"], told[0]["mode"]) if told else None


def choices(trials: Sequence[Trial]) -> Figure | None:
    """What varied and the monitored metric, a line for each trial; None if no trial has the metric."""
    if (winner := best(trials)) is None or winner.results is None:
        return None
    metric, mode = winner.results["monitor"], winner.results["mode"]
    keys = varied(trials)
    rows = [
        {
            **{key: _number(value) for key, value in trial.choices(keys).items()},
            metric: (trial.results or {}).get("best"),
        }
        for trial in trials
    ]
    return parallel_coordinates(rows, metric, mode, [trial.name for trial in trials])


def _number(value: str) -> float | str:
    """A number if it is one."""
    try:
        return float(value)
    except ValueError:
        return value


def _bars(importance: Mapping[str, float]) -> Figure | None:
    return importance_bars(importance) if importance else None


def _cost(trials: Sequence[Trial]) -> Figure | None:
    results = {trial.name: trial.results for trial in ranked(trials) if trial.results}
    if len(results) < 2:
        return None
    metric, mode = next((one["monitor"], one["mode"]) for one in results.values())
    seconds, values = [one["seconds"] for one in results.values()], [one["best"] for one in results.values()]
    return pareto(list(results), seconds, values, metric, mode)


def _learning(trials: Sequence[Trial]) -> Figure | None:
    if (found := monitored(trials)) is None:
        return None
    category, _, split = found[0].partition("/")
    curves: dict[str, Curve] = {}
    for trial in trials:
        with suppress(OSError, ValueError, csv.Error):  # it is damaged, or its trial writes it just now
            curves[trial.name] = curves_of(read_rows(trial.folder / METRICS_CSV)).get(category, {}).get(split, ())
    if not any(curves.values()):
        return None
    winner = best(trials)
    pruned = [trial.name for trial in trials if trial.state == PRUNED]
    return trial_curves(curves, found[0], None if winner is None else winner.name, pruned)
