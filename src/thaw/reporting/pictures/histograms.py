"""How values are spread in each stage: of weights, gradients or activations.

K: bins, which may differ from stage to stage.
"""

from collections.abc import Mapping
from math import floor, log10
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from thaw.reporting.pictures.labels import number, shortened
from thaw.reporting.pictures.style import FAINT, GREY, INK, ORDERED, WIDTH, Picture, empty, plain

OVERLAP = 1.5
"""Height of the highest bin, in rows."""
TAIL = 0.001
"""Share of a stage's values at either end that may lie beside the picture, so that few do not narrow the rest."""


def stage_histograms(values: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str) -> Figure:
    """Return the distribution of each stage, one above the other from input to output, each to its own height.

    Args:
        values: counts (K,) and edges (K + 1,) by stage, from input to output.
        title: what the values are, such as `weights after epoch 3`.

    Raises:
        ValueError: counts and edges that do not belong together.
    """
    if not values:
        return empty(f"{shortened(title, 60)}: no stages")
    picture = Picture(WIDTH, 1.1 + 0.42 * len(values), shortened(title, 90))
    axes = plain(picture.subplots(), "x")
    limits = []
    for row, (stage, (counts, edges)) in enumerate(values.items()):
        counts, edges = np.asarray(counts, float), np.asarray(edges, float)
        if counts.ndim != 1 or edges.shape != (len(counts) + 1,):
            raise ValueError(f"{stage}: counts are (K,) and edges (K + 1,), not {counts.shape} and {edges.shape}")
        line, colour = len(values) - 1 - row, ORDERED(row / max(len(values) - 1, 1))
        said = "no values"
        if counts.sum() > 0 and np.isfinite(edges).all():
            widths = np.diff(edges)
            density = counts / np.where(widths > 0, widths, 1)
            heights = line + OVERLAP * density / density.max()
            axes.stairs(heights, edges, baseline=line, fill=True, color=colour, alpha=0.85, zorder=row + 2, label=stage)
            axes.stairs(heights, edges, baseline=None, color="white", linewidth=0.9, zorder=row + 2)
            limits.append(np.interp([TAIL, 1 - TAIL], [0, *np.cumsum(counts) / counts.sum()], edges))
            middles = (edges[1:] + edges[:-1]) / 2
            mean = np.average(middles, weights=counts)
            deviation = np.sqrt(np.average((middles - mean) ** 2, weights=counts))
            mean = round(mean, 2 - floor(log10(deviation))) if deviation else mean  # more digits mean nothing
            if not deviation:
                axes.vlines(mean, line, line + OVERLAP, color=colour, linewidth=2)
            said = f"{number(mean)} ± {number(deviation)}"
        axes.axhline(line, color=FAINT, linewidth=0.8, zorder=row + 2)
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": 9}
        axes.text(-0.015, line, shortened(stage, 22), ha="right", color=INK, **place)
        axes.text(1.015, line, said, ha="left", color=GREY, **{**place, "fontsize": 8.5})
    if limits:
        low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
        axes.set_xlim((low, high) if high > low else (low - 0.5, high + 0.5))
    axes.set(ylim=(-0.1, len(values) - 1 + OVERLAP + 0.1), yticks=[])
    axes.spines["left"].set_visible(False)
    picture.note("At the right: mean ± standard deviation. Each stage is drawn to the same height.")
    return picture
