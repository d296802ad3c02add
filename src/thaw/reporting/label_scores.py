"""Scores of each label, where samples have any number of them.

N: samples, C: labels.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from thaw.tasks.outputs import Floats, Integers


class LabelScores(NamedTuple):
    """Scores of one label, 0..1; 0 where they are a division by zero."""

    number: int
    """Its index among the names."""
    f1: float
    precision: float
    recall: float
    average_precision: float
    """NaN where no sample has the label."""
    auroc: float
    """NaN where no sample has the label, or all have it."""
    threshold: float
    """Probability from which the label is set."""
    support: int
    """Samples that have the label."""


def label_scores(
    targets: Integers, probabilities: Floats, predictions: Integers, thresholds: Floats
) -> list[LabelScores]:
    """Return the scores of every label, lowest F1 first; labels that no sample has are last.

    Args:
        targets: 0 or 1, (N, C).
        probabilities: (N, C).
        predictions: 0 or 1, (N, C).
        thresholds: (C,).
    """
    rows = []
    for number, (true, own, said) in enumerate(zip(targets.T, probabilities.T, predictions.T, strict=True)):
        columns = precision_recall_fscore_support(true, said, average="binary", zero_division=0)
        precision, recall, f1 = (float(column) for column in columns[:3])
        ranked = ranking_scores(true, own)
        rows.append(LabelScores(number, f1, precision, recall, *ranked, float(thresholds[number]), int(true.sum())))
    return sorted(rows, key=lambda row: (not row.support, row.f1, row.number))


def ranking_scores(true: NDArray[Any], own: Floats) -> tuple[float, float]:
    """Average precision and AUROC of a label, whatever its threshold; NaN where there is none.

    Args:
        true: 0 or 1, (N,).
        own: probability of the label, (N,).
    """
    if not (true.any() and np.isfinite(own).all()):
        return np.nan, np.nan
    return float(average_precision_score(true, own)), float(roc_auc_score(true, own)) if not true.all() else np.nan
