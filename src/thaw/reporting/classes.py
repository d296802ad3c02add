"""Scores of each class, and which classes are confused.

N: samples, C: classes.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from thaw.tasks.outputs import Integers


class ClassScores(NamedTuple):
    """Scores of one class, 0..1; 0 where they are a division by zero."""

    number: int
    """Its index among the class names."""
    precision: float
    recall: float
    f1: float
    support: int
    """Samples of this class."""


class ConfusedPair(NamedTuple):
    """Samples of one class that were taken for another one."""

    true: int
    predicted: int
    times: int
    share: float
    """Of the samples of the true class."""


def class_scores(targets: Integers, predictions: Integers, num_classes: int) -> list[ClassScores]:
    """Return the scores of every class, lowest F1 first; classes without samples are last.

    Args:
        targets: True classes, (N,).
        predictions: Predicted classes, (N,).
        num_classes: C.
    """
    columns = precision_recall_fscore_support(targets, predictions, labels=np.arange(num_classes), zero_division=0)
    rows = [ClassScores(number, *row) for number, row in enumerate(zip(*(c.tolist() for c in columns), strict=True))]
    return sorted(rows, key=lambda row: (not row.support, row.f1, row.number))


def macro_average(scores: list[ClassScores], confusion: Integers) -> ClassScores:
    """Return the plain mean over the classes that are true or predicted at least once, as scikit-learn has it."""
    present = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    precision, recall, f1 = np.mean([row[1:4] for row in scores if present[row.number]], axis=0).tolist()
    return ClassScores(-1, precision, recall, f1, int(confusion.sum()))


def confusion_counts(targets: Integers, predictions: Integers, num_classes: int) -> Integers:
    """Count samples by true class (row) and predicted class (column), (C, C)."""
    flat = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def confused_pairs(confusion: Integers, most: int) -> list[ConfusedPair]:
    """Return at most `most` pairs of a confusion matrix (C, C), the most frequent first, then by share.

    Classes that were confused only once are no pair.
    """
    true, predicted = np.nonzero((confusion > 1) & ~np.eye(len(confusion), dtype=bool))
    counts = confusion[true, predicted]
    shares = counts / confusion.sum(axis=1)[true]
    order = np.lexsort((predicted, true, -shares, -counts))[:most]
    columns = (column[order].tolist() for column in (true, predicted, counts, shares))
    return [ConfusedPair(*row) for row in zip(*columns, strict=True)]
