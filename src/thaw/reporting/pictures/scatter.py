"""Predicted against true numbers, and how far off predictions are.

N: samples, C: quantities.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from thaw.reporting.pictures.labels import shortened
from thaw.reporting.pictures.style import BLUE, GREY, INK, WIDTH, Picture, empty, plain

MOST_PANELS, COLUMNS = 9, 3
"""Quantities that are drawn, and panels side by side."""
MOST_POINTS = 3000
"""Points of a panel; of more samples every n-th is drawn."""


class _Numbers(NamedTuple):
    """The numbers of one quantity that are drawn."""

    name: str
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]


def scatter(targets: ArrayLike, values: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Return predicted by true numbers, a panel for each quantity, with the line on which both are the same.

    Args:
        targets: true numbers, (N, C).
        values: predicted numbers, (N, C).
        class_names: names of C quantities.

    Raises:
        ValueError: shapes that do not belong together.
    """
    return _panels(targets, values, class_names, "predicted by true numbers", _against_true)


def residuals(targets: ArrayLike, values: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Return predicted minus true numbers by predicted ones: a slope or a funnel is what the network has not learnt.

    The arguments are those of `scatter`.
    """
    return _panels(targets, values, class_names, "errors by predicted numbers", _errors)


def _against_true(axes: Axes, numbers: _Numbers) -> None:
    both = [numbers.true, numbers.predicted]
    low, high = (float(edge([edge(values) for values in both])) for edge in (np.min, np.max))
    margin = (high - low) * 0.04 or 0.5
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    _points(axes, numbers.true, numbers.predicted)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true", ylabel="predicted")


def _errors(axes: Axes, numbers: _Numbers) -> None:
    axes.axhline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    _points(axes, numbers.predicted, numbers.predicted - numbers.true)
    axes.set(xlabel="predicted", ylabel="predicted - true")


def _points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    # As pixels: thousands of points make an SVG of megabytes.
    opacity = float(np.clip(60 / np.sqrt(len(x)) / 10, 0.25, 0.8))
    axes.plot(x, y, "o", markersize=4, markeredgewidth=0, alpha=opacity, color=BLUE, label="samples", rasterized=True)


def _panels(
    targets: ArrayLike,
    values: ArrayLike,
    class_names: Sequence[str],
    title: str,
    draw: Callable[[Axes, _Numbers], None],
) -> Figure:
    """Return a panel for each quantity, which `draw` fills."""
    true, predicted = np.asarray(targets, np.float64), np.asarray(values, np.float64)
    if true.size == 0:
        return empty("no samples")
    if true.ndim != 2 or true.shape != predicted.shape or true.shape[1] != len(class_names):
        raise ValueError(
            f"targets and values are (N, {len(class_names)}), for {len(class_names)} class_names, not {true.shape} and "
            f"{predicted.shape}"
        )
    finite = np.isfinite(predicted).all(axis=1)
    total, left = len(true), int(finite.sum())
    if not left:
        return empty(f"None of {total} samples has predictions that are finite numbers.")
    step = -(-left // MOST_POINTS)
    true, predicted = true[finite][::step], predicted[finite][::step]
    shown = list(zip(class_names, true.T, predicted.T, strict=True))[:MOST_PANELS]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width = WIDTH if columns > 1 else 6.0
    picture = Picture(width, rows * (width / columns) * (0.8 if columns == 1 else 0.98) + 0.4, title)
    panels = picture.subplots(rows, columns, squeeze=False).ravel()
    for axes, numbers in zip(panels, shown, strict=False):
        draw(plain(axes, "both"), _Numbers(*numbers))
        axes.set_title(shortened(numbers[0], int(60 / columns)), fontsize=9.5, color=INK, loc="left")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    notes = [
        f"One in {step} of {left} samples." if step > 1 else "",
        f"Left out: {total - left} of {total} samples, with predictions that are not finite." if left < total else "",
        f"The first {MOST_PANELS} of {len(class_names)} quantities." if len(class_names) > MOST_PANELS else "",
    ]
    picture.note(" ".join(filter(None, notes)))
    return picture
