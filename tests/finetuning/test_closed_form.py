"""Heads in closed form."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from thaw.finetuning.closed_form import LinearHead, discriminant_head

Floats = NDArray[np.floating]
C = 3


def gaussians(total: int, num_features: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Three classes of unequal size with one covariance, of features that depend on each other."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(C, total, p=[0.6, 0.3, 0.1])
    mixing = np.linalg.qr(np.random.default_rng(1).normal(size=(num_features, num_features)))[0]
    noise = rng.normal(size=(total, num_features)) * np.linspace(0.2, 2, num_features)
    return (2 * np.eye(C, num_features)[targets] + noise) @ mixing, targets


def accuracy(head: LinearHead, features: Floats, targets: NDArray[np.int64]) -> float:
    return float((head.logits(features).argmax(axis=1) == targets).mean())


def test_with_many_samples_it_is_linear_discriminant_analysis() -> None:
    features, targets = gaussians(5000, 6)
    head = discriminant_head(features[None], targets, C)
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(features, targets).predict_proba(features)
    assert softmax(head.logits(features), axis=1) == pytest.approx(expected, abs=0.02)


def test_with_few_samples_of_many_features_the_covariance_is_shrunk() -> None:
    features, targets = gaussians(60, 100)
    others, their_targets = gaussians(2000, 100, seed=2)
    unshrunk = LinearDiscriminantAnalysis(solver="lsqr").fit(features, targets).score(others, their_targets)
    assert accuracy(discriminant_head(features[None], targets, C), others, their_targets) > unshrunk + 0.1


def test_views_do_not_count_as_samples() -> None:
    features, targets = gaussians(60, 100)
    once, four_times = (discriminant_head(np.stack([features] * views), targets, C) for views in (1, 4))
    assert four_times.weight == pytest.approx(once.weight)
    assert four_times.bias == pytest.approx(once.bias)


def test_views_that_differ_show_which_directions_to_leave_alone() -> None:
    features, targets = gaussians(60, 20)
    shifted = features.copy()
    shifted[:, 0] += np.where(np.arange(60) % 2, 50.0, -50.0)
    plain = discriminant_head(features[None], targets, C)
    both = discriminant_head(np.stack([features, shifted]), targets, C)
    assert np.abs(both.weight[:, 0]).max() < np.abs(plain.weight[:, 0]).max() / 10


def test_with_one_sample_of_each_class_the_nearest_class_mean_wins() -> None:
    targets = np.arange(C)
    means, others = np.random.default_rng(0).normal(size=(C, 5)), np.random.default_rng(1).normal(size=(50, 5))
    nearest = np.square(others[:, None] - means).sum(axis=2).argmin(axis=1)
    assert (discriminant_head(means[None], targets, C).logits(others).argmax(axis=1) == nearest).all()


def test_heads_are_scaled_and_averaged_by_their_logits() -> None:
    rng = np.random.default_rng(0)
    one, other = (LinearHead(rng.normal(size=(C, 4)), rng.normal(size=C)) for _ in range(2))
    features = rng.normal(size=(7, 4))
    mean = (one.logits(features) / 2 + other.logits(features)) / 2
    assert one.at(2.0).mean(other).logits(features) == pytest.approx(mean)
