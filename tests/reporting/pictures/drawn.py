"""Reads back what a figure shows."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from thaw.reporting.pictures.render import rgb

AWKWARD = (
    "고양이",
    "<script>&amp;",
    "$\\alpha$ or $5",
    "",
    "😀 \U0001fae8",
    "_hidden",
    "x" * 300,
    "a\udce9\x00b",
    "عربي",
    "tab\t",
)
"""Class names as they come from folders of users."""


def texts(figure: Figure) -> list[str]:
    """All texts once drawn, ticks included, without the invisible ones."""
    rgb(figure)
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def lines(figure: Figure, axes: int = 0) -> dict[str, Line2D]:
    """Lines that have a name."""
    return {
        str(line.get_label()): line for line in figure.axes[axes].lines if not str(line.get_label()).startswith("_c")
    }


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def predictions(samples: int, classes: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Targets (N,) and probabilities (N, C) of a classifier that is right about half of the time."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, samples)
    logits = random.normal(size=(samples, classes))
    logits[np.arange(samples), targets] += 0.8 * np.sqrt(2 * np.log(max(classes, 2)))
    weights = np.exp(2 * logits)
    return targets, weights / weights.sum(axis=1, keepdims=True)
