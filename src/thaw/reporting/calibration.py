"""How far probabilities can be trusted, before and after temperature scaling (Guo et al. 2017).

N: samples, C: classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thaw.reporting.outputs import Floats, SplitOutputs, log_softmax

BINS = 15
"""Bins of confidence of equal width, as many as conf/task has."""


class Calibration(NamedTuple):
    """Calibration of one split at one temperature. Lower is better."""

    nll: float
    """Mean negative log-likelihood of the true classes, nats."""
    ece: float
    """Expected calibration error, 0..1."""


def calibration(outputs: SplitOutputs, temperature: float = 1.0) -> Calibration:
    """Measure the probabilities softmax(logits / temperature)."""
    log_probabilities = log_softmax(outputs.logits / temperature)
    nll = -log_probabilities[np.arange(len(outputs.targets)), outputs.targets].mean()
    confidences = np.exp(log_probabilities.max(axis=1))
    return Calibration(float(nll), expected_calibration_error(confidences, outputs.predictions == outputs.targets))


def expected_calibration_error(confidences: Floats, is_right: NDArray[np.bool_]) -> float:
    """Mean distance of confidence from accuracy over bins of confidence, weighted by their samples.

    Args:
        confidences: Probability of the predicted class, (N,).
        is_right: Whether the prediction is right, (N,).
    """
    bins = np.digitize(confidences, np.linspace(0, 1, BINS + 1))
    gaps = np.bincount(
        bins, is_right.astype(np.float64) - confidences
    )  # of each bin: samples * (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(confidences))
