"""Temperature scaling: makes the probabilities of a trained network honest, without changing any predicted class.

N: samples, C: classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

LARGEST = 20.0
"""Temperatures from 1 / LARGEST to LARGEST are tried."""


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """The temperature T for which softmax(logits / T) has the lowest negative log-likelihood (Guo et al. 2017).

    The true classes are smoothed by 1 / (N + 2), as Platt (1999) does: where every sample is classified correctly, T
    would otherwise fall to 0. If that T does not lower the likelihood of the classes themselves, or there are no
    samples, T is 1.

    Args:
        logits: (N, C), of samples that the network was not trained on.
        targets: class indices, (N,).
    """
    if not len(targets):
        return 1.0
    smoothing = 1 / (len(targets) + 2)

    def smoothed(log_temperature: float) -> float:
        logs = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        true = logs[np.arange(len(targets)), targets]
        return float(-((1 - smoothing) * true + smoothing * logs.mean(axis=1)).mean())

    bound = np.log(LARGEST)
    temperature = float(np.exp(minimize_scalar(smoothed, bounds=(-bound, bound), method="bounded").x))
    before, after = (negative_log_likelihood(logits, targets, t) for t in (1.0, temperature))
    return temperature if after < before else 1.0


def negative_log_likelihood(
    logits: NDArray[np.floating], targets: NDArray[np.integer], temperature: float = 1.0
) -> float:
    """Mean negative log-likelihood of the targets (N,) under softmax(logits (N, C) / temperature)."""
    return float(log_losses(logits, targets, temperature).mean())


def log_losses(
    logits: NDArray[np.floating], targets: NDArray[np.integer], temperature: float = 1.0
) -> NDArray[np.float64]:
    """Negative log-likelihood of each target, (N,), under softmax(logits (N, C) / temperature)."""
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -logs[np.arange(len(targets)), targets]
