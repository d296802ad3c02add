"""The monitored metric of all trials of a sweep by epoch."""

from collections.abc import Collection, Mapping
from math import isfinite, nan
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.reporting.pictures.labels import label_ends, shortened
from thaw.reporting.pictures.learning_curves import Curve
from thaw.reporting.pictures.style import BLUE, GREY, ORANGE, WIDTH, Picture, empty, plain

MANY = 100
"""From so many lines on they are drawn as pixels, so that the page stays small."""


def trial_curves(
    curves: Mapping[str, Curve], metric: str, best: str | None = None, pruned: Collection[str] = ()
) -> Figure:
    """Return a line for each trial, with the best one in front; epochs are shown counted from 1.

    Args:
        curves: by name of the trial.
        metric: its name.
        best: name of the best trial.
        pruned: names of the trials that were ended early; a cross is at their last epoch.
    """
    curves = {name: [(e, v if isfinite(v) else nan) for e, v in curve] for name, curve in curves.items() if curve}
    if not curves:
        return empty("no epochs yet")
    picture = Picture(WIDTH, 3.8)
    axes = plain(picture.subplots(), "y")
    for name in sorted(curves, key=lambda name: (name == best, name not in pruned)):  # the last one lies on top
        epochs, values = [epoch + 1 for epoch, _ in curves[name]], [value for _, value in curves[name]]
        look: dict[str, Any] = {"color": BLUE, "alpha": 0.5, "linewidth": 1.2, "rasterized": len(curves) >= MANY}
        if name == best:
            look = {"color": ORANGE, "linewidth": 2.6}
        elif name in pruned:
            look |= {"color": GREY}
            axes.plot(epochs[-1:], values[-1:], "x", color=GREY, markersize=6, label=f"end of {name}")
        axes.plot(epochs, values, marker="o" if len(epochs) == 1 else "", label=f"trial {name}", **look)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel=shortened(metric, 40))
    if best in curves:
        axes.set_ylim(axes.get_ylim())
        label_ends(axes, [(curves[best][-1][1], f"trial {shortened(best, 14)}", ORANGE)], gap=0.1)
    crosses = "A cross: there the trial was pruned." if set(pruned) & set(curves) else ""
    picture.note(" ".join(filter(None, ["Orange: the best trial." if best in curves else "", crosses])))
    return picture
