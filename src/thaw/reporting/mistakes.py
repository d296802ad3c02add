"""Which mistakes a report shows.

N: samples, C: classes. A position is a row of the outputs, an index is a sample's number in its data set.
"""

from typing import NamedTuple

import numpy as np

from thaw.reporting.classes import ConfusedPair, confused_pairs
from thaw.tasks.outputs import ClassOutputs, Integers

CONFIDENT, PAIRS, EXAMPLES = 24, 30, 3
"""Most mistakes, confused pairs, and examples of each pair in a report."""


class Mistakes(NamedTuple):
    """A choice of the mistakes in the outputs of a split."""

    confident: list[int]
    """Positions of the most confident mistakes, most confident first."""
    pairs: list[ConfusedPair]
    """The most confused pairs of classes."""
    examples: dict[tuple[int, int], list[int]]
    """Positions of a few samples of each pair, by true and predicted class; the most confident first."""
    others: dict[tuple[int, int], int]
    """Position of the first of `confident` of each true and predicted class that are none of `pairs`."""


def mistakes_of(outputs: ClassOutputs, confusion: Integers) -> Mistakes:
    """Choose from the outputs of a split and their confusion matrix (C, C)."""
    positions = confident_mistakes(outputs)
    true, predicted = outputs.targets[positions], outputs.predictions[positions]
    pairs = confused_pairs(confusion, PAIRS)
    examples = {
        (pair.true, pair.predicted): positions[(true == pair.true) & (predicted == pair.predicted)][:EXAMPLES].tolist()
        for pair in pairs
    }
    confident = positions[:CONFIDENT].tolist()
    others: dict[tuple[int, int], int] = {}
    for position in confident:
        both = int(outputs.targets[position]), int(outputs.predictions[position])
        if both not in examples:
            others.setdefault(both, position)
    return Mistakes(confident, pairs, examples, others)


def confident_mistakes(outputs: ClassOutputs) -> Integers:
    """Return the positions of all mistakes, the most confident first."""
    wrong = np.flatnonzero(outputs.predictions != outputs.targets)
    return wrong[np.argsort(-outputs.confidences[wrong], kind="stable")]
