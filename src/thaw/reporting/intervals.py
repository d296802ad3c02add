"""95% intervals: how much a score could differ on another draw of as many samples.

C: classes.
"""

import numpy as np

from thaw.tasks.outputs import Integers

Z = 1.959964
"""97.5% quantile of the normal distribution."""
FEW_MISTAKES = 10
"""With fewer, a bootstrap is too narrow: measured on made-up classes, it covers the true macro F1 in under 90%."""


def accuracy_interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a share. Unlike a bootstrap it has a width where all or none are right.

    Args:
        right: Samples classified right.
        total: Samples, at least 1.
    """
    share, spread = right / total, Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z * np.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def macro_f1_interval(confusion: Integers, draws: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap of macro F1; None if there are fewer than `FEW_MISTAKES`.

    Args:
        confusion: Samples by true class (row) and predicted class (column), (C, C), at least one.
        draws: Number of times that as many samples are drawn with replacement.
        seed: Seed of the draws.
    """
    if confusion.sum() - confusion.trace() < FEW_MISTAKES:
        return None
    true, predicted = np.nonzero(confusion)
    cells, total = confusion[true, predicted], int(confusion.sum())
    hit, num_classes = np.where(true == predicted, true, -1), len(confusion)
    generator = np.random.default_rng(seed)
    scores = np.empty(draws)
    for number in range(draws):
        # Drawing samples is drawing how many fall into each cell of the confusion matrix.
        drawn = generator.multinomial(total, cells / total)
        hits = np.bincount(hit + 1, drawn, num_classes + 1)[1:]
        both = np.bincount(true, drawn, num_classes) + np.bincount(predicted, drawn, num_classes)
        is_present = both > 0
        scores[number] = (2 * hits[is_present] / both[is_present]).mean()
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)
