"""What a network answered to the samples of one split.

N: samples, C: classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SplitOutputs:
    """Logits and labels of one split, row by row, with at least one row."""

    indices: Integers
    """Index of each sample in its data set, (N,)."""
    targets: Integers
    """True class of each sample, (N,)."""
    logits: Floats
    """As the network gives them, before any temperature, (N, C)."""

    @cached_property
    def probabilities(self) -> Floats:
        """Class probabilities without calibration, (N, C)."""
        return np.exp(log_softmax(self.logits))

    @cached_property
    def predictions(self) -> Integers:
        """Most probable class of each sample, (N,)."""
        return self.logits.argmax(axis=1)

    @cached_property
    def confidences(self) -> Floats:
        """Probability of the predicted class, (N,)."""
        return self.probabilities.max(axis=1)


def log_softmax(logits: Floats) -> Floats:
    """Logarithm of the class probabilities of logits (N, C), in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
