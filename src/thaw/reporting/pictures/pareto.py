"""What a better metric costs: a point for each trial, and those that no other one beats in both."""

from collections.abc import Sequence
from math import isfinite
from operator import ge, gt, le, lt
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from thaw.reporting.pictures.labels import number, shortened
from thaw.reporting.pictures.style import BLUE, GREY, ORANGE, WIDTH, Picture, empty, plain

LOG_RATIO = 10
"""Seconds are on a log axis if the slowest trial took so many times as long as the fastest."""
MOST_NAMES = 12


def pareto_front(seconds: Sequence[float], values: Sequence[float], mode: str) -> list[int]:
    """Return the trials that no other one beats in time and metric alike, the fastest first.

    Of trials that are the same in both, all are in it. What is not finite is left out.

    Args:
        seconds: how long each trial took.
        values: metric of each trial.
        mode: `min` or `max`: which metric is best.
    """
    better, as_good = (gt, ge) if mode == "max" else (lt, le)
    finite = [i for i in range(len(values)) if isfinite(seconds[i]) and isfinite(values[i])]

    def beats(one: int, other: int) -> bool:
        faster, better_one = seconds[one] < seconds[other], better(values[one], values[other])
        return (faster and as_good(values[one], values[other])) or (better_one and seconds[one] <= seconds[other])

    return sorted((i for i in finite if not any(beats(j, i) for j in finite)), key=lambda i: (seconds[i], i))


def pareto(names: Sequence[str], seconds: Sequence[float], values: Sequence[float], metric: str, mode: str) -> Figure:
    """Return the metric by seconds, with the trials of `pareto_front` named and joined.

    Args:
        names: of the trials.
        seconds: how long each took.
        values: metric of each.
        metric: its name.
        mode: `min` or `max`: which metric is best.
    """
    front = pareto_front(seconds, values, mode)
    if not front:
        return empty(f"no trial has a {shortened(metric, 40)}")
    picture = Picture(WIDTH, 3.6)
    axes = plain(picture.subplots(), "both")
    rest = [i for i in range(len(values)) if i not in front]
    axes.plot([seconds[i] for i in rest], [values[i] for i in rest], "o", color=BLUE, alpha=0.55, label="others")
    front_points = [seconds[i] for i in front], [values[i] for i in front]
    axes.plot(*front_points, "-o", color=ORANGE, linewidth=1.4, markersize=7, drawstyle="steps-post", label="front")
    for i in front[-MOST_NAMES:]:
        beside: dict[str, Any] = {
            "xytext": (0, 7 if mode == "max" else -13),
            "textcoords": "offset points",
            "ha": "center",
        }
        axes.annotate(shortened(names[i], 20), (seconds[i], values[i]), fontsize=8.5, color=GREY, **beside)
    axes.margins(y=0.12)
    axes.set(xlabel="seconds", ylabel=shortened(metric, 40))
    positive = [s for s in seconds if s > 0]
    if len(positive) == len(seconds) and max(seconds) / min(seconds) >= LOG_RATIO:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    picture.note(f"Orange: no other trial is both faster and {'higher' if mode == 'max' else 'lower'}.")
    return picture
