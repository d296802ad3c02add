"""Which classes are taken for which.

C: classes, N: samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from thaw.reporting.pictures.labels import columns, shortened
from thaw.reporting.pictures.predictions import checked
from thaw.reporting.pictures.style import BLUES, FAINT, GREY, INK, ORANGES, WIDTH, Picture, empty, plain

MOST_TICKS = 25
"""Class names along an axis."""
MOST_CELLS = 240
"""Cells along an axis, about two pixels each; with more classes several share one."""
MOST_PAIRS = 12


def confusion_matrix(targets: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Return the matrix, true classes by predicted ones, beside a list of the pairs that are confused most.

    A cell's colour is its share of the true class, on a scale that shows small shares; its count is written where it
    fits.

    Args:
        targets: class indices (N,).
        probabilities: (N, C).
        class_names: C names.
    """
    samples = checked(targets, probabilities, class_names)
    if not len(samples.targets):
        return empty(f"no samples. {samples.omitted}".strip())
    classes = len(class_names)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (samples.targets, samples.probabilities.argmax(axis=1)), 1)
    total, right = int(counts.sum()), int(np.trace(counts))
    picture = Picture(WIDTH, 5.6 if classes > 4 else 4.2, f"{right} of {total} right ({right / total:.1%})")
    matrix, beside = picture.subplots(1, 2, width_ratios=[2.15, 1])
    _draw_cells(matrix, counts)
    _draw_names(matrix, class_names)
    _list_pairs(beside, counts, class_names)
    picture.note(f"Colour: share of the true class, blue if right, orange if wrong. {samples.omitted}".strip())
    return picture


def _draw_cells(axes: Axes, counts: NDArray[np.int64]) -> None:
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(classes, dtype=bool)
    wrong = _pooled(np.where(diagonal, 0, shares))
    extent = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    norm = PowerNorm(0.5 if classes <= MOST_TICKS else 0.3, 0, 1)  # small cells need strong colours
    axes.imshow(wrong, cmap=ORANGES, norm=norm, extent=extent, interpolation="nearest")
    right = _pooled(np.where(diagonal, shares, 0))
    right = np.ma.masked_where(~np.eye(len(right), dtype=bool), right)
    axes.imshow(right, cmap=BLUES, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    size = 420 / classes / max(len(str(counts.max())), 2) * 0.9  # points in which the widest count fits
    if size >= 6:
        for row, column in np.argwhere(counts):
            dark = shares[row, column] > 0.55 if row == column else shares[row, column] > 0.45
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if dark else INK}
            axes.text(column, row, str(counts[row, column]), fontsize=min(size, 11), **look)


def _pooled(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest share of each block of cells, so that none is lost where there are more than pixels."""
    side = -(-len(shares) // MOST_CELLS)
    blocks = -(-len(shares) // side)
    padded = np.pad(shares, (0, blocks * side - len(shares)))
    return padded.reshape(blocks, side, blocks, side).max(axis=(1, 3))


def _draw_names(axes: Axes, class_names: Sequence[str]) -> None:
    classes = len(class_names)
    ticks = range(0, classes, -(-classes // MOST_TICKS))
    names = [shortened(class_names[tick], 14) for tick in ticks]
    plain(axes)
    across = max(map(columns, names)) * len(names) > 60
    axes.set_xticks(ticks, names, rotation=90 if across else 0)
    axes.set_yticks(ticks, names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set(visible=True, color=FAINT)
    if classes <= MOST_TICKS:
        edges, ends = np.arange(0.5, classes - 1), (-0.5, classes - 0.5)
        axes.vlines(edges, *ends, color=FAINT, linewidth=0.6)
        axes.hlines(edges, *ends, color=FAINT, linewidth=0.6)


def _list_pairs(axes: Axes, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    axes.set_axis_off()
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(true, predicted) for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    pairs = [pair for pair in pairs if wrong[pair]]

    def write(x: float, down: float, text: str, **look: Any) -> None:
        """Write text `down` points below the top."""
        axes.annotate(text, (x, 1), (0, -down), textcoords="offset points", va="top", fontsize=8.5, **look)

    write(0, 0, "most confused" if pairs else "none confused", color=INK)
    names = [(shortened(class_names[true], 16), shortened(class_names[predicted], 16)) for true, predicted in pairs]
    short = all(columns(true + predicted) <= 14 for true, predicted in names)
    for line, pair in enumerate(pairs):
        down = 22 + (17 if short else 26) * line
        text = (" → " if short else "\n → ").join(names[line])
        write(0.34, down, text, color=GREY, linespacing=1.15)
        share = f"{wrong[pair]} of {counts[pair[0]].sum()}"
        write(0.28, down, share, color=INK, ha="right")
