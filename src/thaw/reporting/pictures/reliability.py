"""Whether the probability of the predicted class is how often it is right (Guo et al. 2017).

C: classes, K: bins, N: samples.
"""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from thaw.reporting.pictures.predictions import checked
from thaw.reporting.pictures.style import BLUE, GREY, ORANGE, Picture, empty, plain


class Reliability(NamedTuple):
    """Samples by confidence, the probability of the predicted class, in bins of equal width."""

    edges: NDArray[np.float64]
    """(K + 1,), from 0 to 1; a bin holds its lower edge, the last one both."""
    counts: NDArray[np.int64]
    """Samples of each bin, (K,)."""
    confidence: NDArray[np.float64]
    """Mean confidence of each bin, (K,); NaN in an empty one."""
    accuracy: NDArray[np.float64]
    """Share of right predictions of each bin, (K,); NaN in an empty one."""
    ece: float
    """Expected calibration error, as torchmetrics computes it: confidences of exactly 1 are a bin of their own."""


def reliability_bins(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> Reliability:
    """Sort samples by confidence: targets (N,), probabilities (N, C). Of no samples the error is NaN."""
    samples = checked(targets, probabilities)
    edges = np.linspace(0, 1, bins + 1)
    if not len(samples.targets):
        return Reliability(edges, np.zeros(bins, np.int64), np.full(bins, np.nan), np.full(bins, np.nan), np.nan)
    confidence = samples.probabilities.max(axis=1)
    right = samples.probabilities.argmax(axis=1) == samples.targets
    index = np.minimum(np.digitize(confidence, edges) - 1, bins)
    sums = [np.bincount(index, weights, bins + 1) for weights in (np.ones(len(index)), confidence, right)]
    ece = float(np.abs(sums[1] - sums[2]).sum() / len(index))
    counts, confidences, rights = (np.append(values[:-2], values[-2:].sum()) for values in sums)
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(edges, counts.astype(np.int64), confidences / filled, rights / filled, ece)


def reliability(targets: ArrayLike, probabilities: ArrayLike, calibrated: ArrayLike | None = None) -> Figure:
    """Return accuracy against confidence in 15 bins, with the expected calibration error, above how many are in each.

    Args:
        targets: class indices (N,).
        probabilities: (N, C).
        calibrated: (N, C) after temperature scaling: a second series.
    """
    series = {"as trained": (reliability_bins(targets, probabilities), BLUE)}
    if calibrated is not None:
        series["calibrated"] = (reliability_bins(targets, calibrated), ORANGE)
    omitted = checked(targets, probabilities).omitted
    if not series["as trained"][0].counts.sum():
        return empty(f"no samples. {omitted}".strip())
    picture = Picture(6.0, 6.0)
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    remark: dict[str, Any] = {"fontsize": 8, "color": GREY, "va": "center"}
    above.text(0.02, 0.97, "right more often than expected", **remark)
    above.text(0.98, 0.05, "right less often than expected", ha="right", **remark)
    for line, (name, (binned, colour)) in enumerate(series.items()):
        _draw_series(above, below, name, binned, colour, side=line if len(series) > 1 else None)
        said = ("" if calibrated is None else f"{name}: ") + f"expected calibration error {binned.ece:.3f}"
        place = 1.03 + 0.06 * (len(series) - 1 - line)
        above.text(0, place, said, fontsize=10, color=colour, transform=above.transAxes)
    plain(above, "both").set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    plain(below, "y").set(xlabel="confidence", ylabel="samples")
    below.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    picture.note(omitted)
    return picture


def _draw_series(above: Axes, below: Axes, name: str, binned: Reliability, colour: str, side: int | None) -> None:
    """Draw points with their distance to the diagonal, and counts; `side` 0 or 1: which half of each bin they take."""
    filled = binned.counts > 0
    confidence, accuracy = binned.confidence[filled], binned.accuracy[filled]
    above.vlines(confidence, accuracy, confidence, color=colour, alpha=0.35, linewidth=3)
    above.plot(confidence, accuracy, "-o", color=colour, linewidth=1.4, markersize=5, label=name)
    width = np.diff(binned.edges)
    left, share = (binned.edges[:-1], 0.92) if side is None else (binned.edges[:-1] + side * width / 2, 0.45)
    below.bar(left + 0.03 * width, binned.counts, width * share, align="edge", color=colour, alpha=0.8, label=name)
