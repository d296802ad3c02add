"""What a network gave for each sample of a split: what reports, pictures and calibration are computed from.

N: samples of the split, C: classes or quantities.
"""

from abc import ABC
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

Integers = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Outputs(ABC):
    """Outputs of one pass over a split, row by row, sorted by sample index. A task has one of the derived classes."""

    kind: ClassVar[str]
    """Name of the class in files."""

    indices: Integers
    """Index of each sample in the data, (N,)."""
    targets: NDArray[Any]
    """True class of each sample, (N,), or a row for each, (N, C)."""
    logits: Floats
    """As the network gives them, before any temperature, (N, C); of numbers, their values in the user's unit."""


class ClassOutputs(Outputs):
    """Of samples with one class each."""

    kind = "single_label"

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Class probabilities, (N, C)."""
        return softmax(self.logits.astype(np.float64), axis=1)

    @cached_property
    def predictions(self) -> Integers:
        """Most probable class of each sample, (N,)."""
        return self.logits.argmax(axis=1)

    @cached_property
    def confidences(self) -> NDArray[np.float64]:
        """Probability of the predicted class of each sample, (N,)."""
        return self.probabilities.max(axis=1)

    def calibrated(self, temperature: float) -> "ClassOutputs":
        """The same with logits divided by a temperature."""
        return replace(self, logits=self.logits / temperature)


class MultiOutputs(Outputs):
    """Of samples with any number of labels; targets are 0 and 1, (N, C)."""

    kind = "multi_label"

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each label, (N, C); a row has no particular sum."""
        return expit(self.logits.astype(np.float64))


class NumberOutputs(Outputs):
    """Of samples with numbers; targets are float64, (N, C)."""

    kind = "regression"

    @property
    def values(self) -> Floats:
        """The predicted numbers in the user's unit, (N, C)."""
        return self.logits

    @cached_property
    def errors(self) -> Floats:
        """Predicted minus true number, (N, C)."""
        return self.logits - self.targets


KINDS: dict[str, type[Outputs]] = {kind.kind: kind for kind in (ClassOutputs, MultiOutputs, NumberOutputs)}
