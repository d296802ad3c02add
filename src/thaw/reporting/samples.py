"""Which samples are worth a look. N: samples, C: classes."""

import numpy as np
from numpy.typing import NDArray


def confidences(probabilities: NDArray[np.floating]) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """The predicted class of each sample and its probability, both (N,), of probabilities (N, C)."""
    predicted = probabilities.argmax(axis=1)
    return predicted, probabilities[np.arange(len(predicted)), predicted]


def most_confident_mistakes(targets: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.integer]:
    """Positions of wrongly classified samples, the surest first. Targets (N,), probabilities (N, C)."""
    predicted, confidence = confidences(probabilities)
    wrong = np.flatnonzero(predicted != targets)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]
