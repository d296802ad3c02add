"""Simple models that learn from features or from TF-IDF, as scikit-learn has them, and how they are measured.

N: samples, D: features, C: classes or quantities.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import normalize

NEIGHBOURS = 5


class SimpleModels(NamedTuple):
    """The simple models for one kind of labels."""

    measure_name: str
    """Also their key in baselines.json."""
    measure: Callable[[NDArray[Any], NDArray[Any]], float]
    """Score of predictions: a function of the true labels and of the predicted ones."""
    on_features: Mapping[str, Callable[[int], Any]]
    """By name, a function of the number of training samples that gives an estimator for features of length 1."""
    on_texts: Mapping[str, Callable[[], Any]]
    """By name, a function that gives an estimator for TF-IDF."""


class ClassMeans(BaseEstimator):
    """Names the class whose mean has the smallest angle with the features, which have the length 1."""

    def fit(self, features: NDArray[np.floating], targets: NDArray[np.integer]) -> "ClassMeans":
        """Learn from features (N, D) and class indices (N,)."""
        self.classes = np.unique(targets)
        self.means = normalize([features[targets == number].mean(axis=0) for number in self.classes])
        return self

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.integer]:
        """Class indices (N,) of features (N, D)."""
        return self.classes[(features @ self.means.T).argmax(axis=1)]


def neighbours(samples: int) -> int:
    """How many of the nearest of so many training samples decide."""
    return min(NEIGHBOURS, samples)
