"""Precision against recall as the threshold on a probability falls, each class against all others, or each label.

C: classes, N: samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from thaw.reporting.pictures.labels import shortened
from thaw.reporting.pictures.predictions import Predictions, checked
from thaw.reporting.pictures.style import COLOURS, GREY, INK, WIDTH, Picture, empty, plain

MOST_CURVES = 10
WORST = 5
"""Classes shown where there are more than `MOST_CURVES`, beside the micro average."""
MOST_POINTS = 500
"""Points of a curve that are drawn."""


class _Ranking(NamedTuple):
    """What one curve is made of."""

    name: str
    positive: NDArray[np.bool_]
    scores: NDArray[np.float64]
    average_precision: float


def precision_recall(targets: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Return the curve of each class with its average precision, the best class first.

    Of two classes the curve of the second is drawn. Of more than ten the five worst are, with the micro average: the
    curve of all pairs of sample and class at once. Classes without a sample are left out, and named.

    Args:
        targets: class indices (N,), or 0 and 1 for each label (N, C): then each label has a curve.
        probabilities: (N, C).
        class_names: C names.
    """
    samples = checked(targets, probabilities, class_names)
    binary = len(class_names) == 2 and samples.targets.ndim == 1
    asked = [1] if binary else range(len(class_names))
    has_samples = np.asarray(samples.positive.any(axis=0))
    missing = [class_names[index] for index in asked if not has_samples[index]]
    things = "classes" if samples.targets.ndim == 1 else "labels"
    notes = [samples.omitted, _named("Without a sample: ", missing)]
    rankings = [_ranking(samples, index, class_names[index]) for index in asked if has_samples[index]]
    if not rankings:
        return empty(
            " ".join(filter(None, notes)) if len(samples.targets) else f"no samples. {samples.omitted}".strip()
        )
    rankings.sort(key=lambda ranking: -ranking.average_precision)
    mean = np.mean([ranking.average_precision for ranking in rankings])
    title = f"average precision {mean:.3f}" + ("" if binary else f", mean of {len(rankings)} {things}")
    colours: Sequence[str] = COLOURS
    if len(rankings) > MOST_CURVES:
        colours = (INK, *COLOURS)
        rankings = [_micro(samples), *rankings[-WORST:]]
        notes.insert(0, f"Micro average: all {things} at once. Below it the {WORST} {things} of least precision.")
    picture = Picture(WIDTH, 4.6, title)
    axes, beside = picture.subplots(1, 2, width_ratios=[2.2, 1])
    beside.set_axis_off()
    for line, (ranking, colour) in enumerate(zip(rankings, colours, strict=False)):
        recall, precision = _curve(ranking)
        axes.plot(recall, precision, color=colour, linewidth=1.8, drawstyle="steps-post", label=ranking.name)
        top = 0.97 - 0.08 * line
        beside.plot([0, 0.09], [top, top], color=colour, linewidth=3, solid_capstyle="butt")
        beside.text(0.13, top, f"{ranking.average_precision:.3f}", fontsize=9, color=GREY, va="center")
        beside.text(0.34, top, shortened(ranking.name, 22), fontsize=9, color=INK, va="center")
    beside.set(xlim=(0, 1), ylim=(0, 1))
    plain(axes, "both").set(xlim=(0, 1.005), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    picture.note(" ".join(filter(None, notes)))
    return picture


def _ranking(samples: Predictions, index: int, name: str) -> _Ranking:
    positive, scores = samples.positive[:, index], samples.probabilities[:, index]
    return _Ranking(name, positive, scores, float(average_precision_score(positive, scores)))


def _micro(samples: Predictions) -> _Ranking:
    positive, scores = samples.positive.ravel(), samples.probabilities.ravel()
    return _Ranking("micro average", positive, scores, float(average_precision_score(positive, scores)))


def _curve(ranking: _Ranking) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall, falling, and precision; of long curves some points, the first and the last among them."""
    precision, recall, _ = precision_recall_curve(ranking.positive, ranking.scores, drop_intermediate=True)
    shown = np.unique(np.linspace(0, len(recall) - 1, MOST_POINTS).round().astype(int))
    return recall[shown], precision[shown]


def _named(start: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{start}{', '.join(shortened(name, 20) for name in names[:5])}{more}."
