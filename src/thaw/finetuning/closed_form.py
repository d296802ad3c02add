"""Linear heads in closed form, on the features of a network: nothing is trained by steps.

N: samples, V: views of each, D: features, C: classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

Floats = NDArray[np.floating]


class LinearHead(NamedTuple):
    """One linear layer from features to logits."""

    weight: Floats
    """(C, D)."""
    bias: Floats
    """(C,)."""

    def logits(self, features: Floats) -> Floats:
        """Logits (N, C) of features (N, D)."""
        return features @ self.weight.T + self.bias

    def at(self, temperature: float) -> "LinearHead":
        """The head whose logits are those of this one, divided by a temperature."""
        return LinearHead(self.weight / temperature, self.bias / temperature)

    def mean(self, other: "LinearHead") -> "LinearHead":
        """The head whose logits are the mean of those of two heads."""
        return LinearHead((self.weight + other.weight) / 2, (self.bias + other.bias) / 2)


def discriminant_head(views: Floats, targets: NDArray[np.integer], num_classes: int) -> LinearHead:
    """Linear discriminant analysis, with the covariance shrunk towards a multiple of the identity (Ledoit, Wolf 2004).

    Means, shares and covariance of the classes are those of all views. How far the covariance is shrunk follows from
    the first view alone: views of one sample are not independent, and counted as samples would shrink it too little.
    With one sample of each class there is no covariance, and the head is that of the nearest class mean.

    Args:
        views: features of each view of the samples, (V, N, D).
        targets: class index of each sample, (N,). There is a sample of every class.
        num_classes: C.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # here, because commands that only report do without it

    views, num_features = views.astype(np.float64), views.shape[2]
    counts = np.bincount(targets, minlength=num_classes)
    means = np.zeros((num_classes, num_features))
    np.add.at(means, targets, views.mean(axis=0))
    means /= counts[:, None]
    within = views - means[targets]  # (V, N, D)
    shrinkage = ledoit_wolf_shrinkage(within[0], assume_centered=True)
    rows = within.reshape(-1, num_features)
    variance = np.square(rows).mean()
    covariance = (1 - shrinkage) * (rows.T @ rows) / len(rows)
    covariance.flat[:: num_features + 1] += shrinkage * variance if variance > 0 else 1
    weight = solve(covariance, means.T, assume_a="pos").T
    bias = np.log(counts / counts.sum()) - (weight * means).sum(axis=1) / 2
    # Only differences between classes matter; in 16-bit arithmetic, what they share would cost digits.
    return LinearHead(weight - weight.mean(axis=0), bias - bias.mean())
