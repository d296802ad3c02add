"""Targets and class probabilities of a split, checked: what several pictures are drawn from.

C: classes, N: samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Predictions(NamedTuple):
    """Samples whose probabilities are numbers."""

    targets: NDArray[np.int64]
    """True class of each sample, (N,); or 0 and 1 for each of its labels, (N, C)."""
    probabilities: NDArray[np.float64]
    """(N, C)."""
    omitted: str
    """Remark on samples that were left out; empty if there are none."""

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Whether each sample is of each class, or has each label, (N, C)."""
        if self.targets.ndim == 2:
            return self.targets == 1
        return self.targets[:, None] == np.arange(self.probabilities.shape[1])


def checked(targets: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str] | None = None) -> Predictions:
    """Return the samples without those whose probabilities a diverged network has made NaN or infinite.

    Args:
        targets: class indices (N,), or 0 and 1 for each label (N, C).
        probabilities: (N, C); for no samples of any shape.
        class_names: C names.

    Raises:
        ValueError: shapes that do not belong together, or a target that is no class, and neither 0 nor 1.
    """
    truth, scores = np.asarray(targets).astype(np.int64), np.asarray(probabilities, np.float64)
    if truth.size == 0 and scores.size == 0:
        return Predictions(np.zeros(0, np.int64), np.zeros((0, len(class_names or ()))), "")
    if scores.ndim != 2 or truth.shape not in (scores.shape, scores.shape[:1]):
        raise ValueError(f"targets are (N,) or (N, C) and probabilities (N, C), not {truth.shape} and {scores.shape}")
    if class_names is not None and len(class_names) != scores.shape[1]:
        raise ValueError(f"{len(class_names)} class_names for probabilities of {scores.shape[1]} classes")
    largest = 1 if truth.ndim == 2 else scores.shape[1] - 1
    if truth.min() < 0 or truth.max() > largest:
        raise ValueError(f"targets are from 0 to {largest}, not {truth.min()} to {truth.max()}")
    finite = np.isfinite(scores).all(axis=1)
    lost = int((~finite).sum())
    omitted = f"Left out: {lost} of {len(truth)} samples, with probabilities that are not finite." if lost else ""
    return Predictions(truth[finite], scores[finite], omitted)
