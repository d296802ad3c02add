"""The trials of a sweep: a line each, from its choices to its result."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan, log10, nan
from numbers import Real
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import TICKRIGHT
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from thaw.reporting.pictures.labels import number, shortened
from thaw.reporting.pictures.style import GREY, INK, ORANGE, ORDERED, WIDTH, Picture, empty

LOG_RATIO = 30
"""Positive numbers are on a log axis if the largest is at least so many times the smallest, and most are small."""
MOST_TICKS = 12


class Axis(NamedTuple):
    """One choice, or the metric, with the place of each trial on it."""

    name: str
    heights: list[float]
    """From 0, bottom, to 1, top, by trial; NaN if the trial has no value."""
    ticks: list[tuple[float, str]]
    """Heights and texts."""


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Return an axis for the values of all trials.

    It is linear or logarithmic for numbers, and has a place for each value otherwise. None, NaN and infinity are no
    values.
    """
    given = [value for value in values if value is not None and not (isinstance(value, Real) and not isfinite(value))]
    if not given or any(isinstance(value, bool) or not isinstance(value, Real) for value in given):
        texts = sorted({str(value) for value in given})
        places = {text: (index + 0.5) / len(texts) for index, text in enumerate(texts)}
        every = max(-(-len(texts) // MOST_TICKS), 1)
        ticks = [(places[text], shortened(text, 14)) for text in texts[::every]]
        return Axis(name, [places[str(value)] if value in given else nan for value in values], ticks)
    low, high = min(given), max(given)
    log = low > 0 and high / low >= LOG_RATIO and median(given) < 0.35 * high

    def height(value: float) -> float:
        if low == high:
            return 0.5
        return log10(value / low) / log10(high / low) if log else (value - low) / (high - low)

    distinct = sorted(set(given))
    locator = LogLocator(subs=(1, 3) if log and high / low < 300 else (1,), numticks=6) if log else MaxNLocator(5)
    between = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    shown = distinct if len(distinct) <= 5 else between if len(between) > 1 else [low, high]
    heights = [height(value) if value in given else nan for value in values]
    return Axis(name, heights, [(height(tick), number(tick)) for tick in shown])


def parallel_coordinates(
    trials: Sequence[Mapping[str, Any]], metric: str, mode: str, called: Sequence[str] = ()
) -> Figure:
    """Return an axis for each choice that varies, and one for the metric; a trial is a line, the best one thick.

    Args:
        trials: choices and metric of each trial by name; without a result the metric is None, and the line dashed.
        metric: name of the last axis.
        mode: `min` or `max`: which metric is best.
        called: what the trials are called; 0, 1 ... if it is empty.

    Raises:
        ValueError: `mode` is neither.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is 'min' or 'max', not {mode!r}")
    called = called or [str(number) for number in range(len(trials))]
    names = [name for name in dict.fromkeys(name for trial in trials for name in trial) if name != metric]
    # None is a choice like any other; a choice that a trial lacks breaks its line.
    columns = {
        name: [trial.get(name) if trial.get(name, 0) is not None else "None" for trial in trials] for name in names
    }
    constant = [name for name, values in columns.items() if len({str(value) for value in values}) == 1]
    constant = constant if len(constant) < len(names) else []
    result = axis(metric, [trial.get(metric) for trial in trials])
    axes = [*(axis(name, columns[name]) for name in names if name not in constant), result]
    if all(isnan(height) for height in result.heights):
        return empty(f"no trial has a {shortened(metric, 40)}" if trials else "no trials")
    # Worst first, so that better ones lie on top; those without a result below all.
    goodness = [height if mode == "max" else 1 - height for height in result.heights]
    ranks = [(-inf if isnan(good) else good, -trial) for trial, good in enumerate(goodness)]  # of equals the first wins
    order = sorted(range(len(trials)), key=lambda trial: ranks[trial])
    picture = Picture(max(WIDTH, 1.25 * len(axes)), 4.4)
    canvas = picture.subplots()
    for trial in order:
        points = [one.heights[trial] for one in axes]
        look: dict[str, Any] = {"color": ORDERED(goodness[trial]), "alpha": 0.75, "linewidth": 1.2}
        if isnan(goodness[trial]):
            look = {"color": "#B0B0B0", "alpha": 0.8, "linewidth": 0.9, "linestyle": (0, (3, 3))}
        elif trial == order[-1]:
            look = {"color": ORANGE, "linewidth": 3}
        canvas.plot(range(len(axes)), points, label=f"trial {called[trial]}", **look)
    for place, one in enumerate(axes):
        _draw_axis(canvas, place, one, last=place == len(axes) - 1)
    canvas.set(xlim=(-0.06, len(axes) - 1 + min(0.07 * (len(axes) - 1), 0.4)), ylim=(-0.04, 1.12))
    canvas.set_axis_off()
    without = sum(isnan(height) for height in result.heights)
    best = trials[order[-1]][metric]
    winner = shortened(called[order[-1]], 40)
    notes = [f"Best (thick): trial {winner}, {shortened(metric, 30)} {number(best)}, the {mode}imum."]
    notes += [f"Dashed: {without} of {len(trials)} trials, without a result."] if without else []
    same = [f"{shortened(name, 30)}={shortened(str(columns[name][0]), 20)}" for name in constant]
    picture.note(" ".join([*notes, f"In all trials: {', '.join(same)}." if same else ""]).strip())
    return picture


def _draw_axis(canvas: Axes, place: int, one: Axis, last: bool) -> None:
    canvas.plot([place, place], [0, 1], color=INK if last else GREY, linewidth=1.6 if last else 0.9)
    canvas.text(place, 1.06, shortened(one.name, 18), ha="center", va="bottom", fontsize=9, color=INK)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for height, text in one.ticks:
        canvas.plot([place], [height], marker=TICKRIGHT, markersize=4, color=GREY)
        beside: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        canvas.annotate(text, (place, height), fontsize=8, color=GREY, path_effects=halo, zorder=5, **beside)
