"""How far probabilities can be trusted, before and after temperature scaling (Guo et al. 2017)."""

from typing import NamedTuple

from thaw.reporting.pictures.reliability import reliability_bins
from thaw.tasks.calibration import negative_log_likelihood
from thaw.tasks.outputs import ClassOutputs


class Calibration(NamedTuple):
    """Calibration of one split at one temperature. Lower is better."""

    nll: float
    """Mean negative log-likelihood of the true classes, nats."""
    ece: float
    """Expected calibration error, 0..1."""


def calibration(outputs: ClassOutputs, temperature: float = 1.0) -> Calibration:
    """Measure the probabilities softmax(logits / temperature)."""
    scaled = outputs.calibrated(temperature)
    bins = reliability_bins(scaled.targets, scaled.probabilities)
    return Calibration(negative_log_likelihood(scaled.logits, scaled.targets), bins.ece)
