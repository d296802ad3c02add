"""Baselines that train no network."""

import numpy as np
import pytest

from thaw.reporting import label_results, number_results
from thaw.reporting.baselines import feature_baselines, text_baselines
from thaw.reporting.class_results import MODELS


def test_features_are_compared_by_their_angle() -> None:
    rng = np.random.default_rng(0)
    directions = np.eye(3)
    targets = np.arange(60) % 3
    # Far longer features of class 0 would draw every sample to another class by plain distance.
    lengths = np.where(targets == 0, 100.0, 1.0)[:, None]
    features = (directions[targets] + rng.normal(size=(60, 3)) * 0.1) * lengths
    test = directions + 0.1
    accuracy = feature_baselines(features, targets, test, np.arange(3), MODELS)
    assert accuracy == {"k-NN on pretrained features": 1.0, "class means of pretrained features": 1.0}
    assert feature_baselines(features, np.zeros(60, int), test, np.arange(3), MODELS) == {}, (
        "one class: nothing to tell apart"
    )
    few = feature_baselines(features[:3], targets[:3], test, np.arange(3), MODELS)
    assert few["class means of pretrained features"] == 1, "fewer samples than neighbours"


def test_tf_idf_reads_words_and_parts_of_words_in_any_script() -> None:
    texts = ["good film", "bad film", "really good", "so bad", "재미있는 영화", "재미없는 영화"]
    targets = np.array([1, 0, 1, 0, 1, 0])
    test = ["goodish", "badly", "정말 재미있는"]
    (accuracy,) = text_baselines(texts, targets, test, np.array([1, 0, 1]), MODELS).values()
    assert accuracy == pytest.approx(1.0)


def test_labels_are_measured_by_macro_f1_and_numbers_by_their_error() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "blue"])
    has = rng.integers(0, 2, (80, 3))
    texts = [" ".join(["a", *words[row == 1]]) for row in has]
    train, test = slice(60), slice(60, 80)
    (f1,) = text_baselines(texts[train], has[train], texts[test], has[test], label_results.MODELS).values()
    assert f1 > 0.95
    ((name, f1),) = feature_baselines(
        has[train] + 0.5, has[train], has[test] + 0.5, has[test], label_results.MODELS
    ).items()
    assert (name, f1) == ("k-NN on pretrained features", 1)
    numbers = has @ np.array([[1.0, 100.0], [2.0, 200.0], [4.0, 400.0]])
    (error,) = text_baselines(texts[train], numbers[train], texts[test], numbers[test], number_results.MODELS).values()
    median = np.abs(numbers[test] - np.median(numbers[train], axis=0)).mean()
    assert error < 0.2 * median
    one = numbers[:, :1]
    (error,) = feature_baselines(
        has[train] + 0.5, one[train], has[test] + 0.5, one[test], number_results.MODELS
    ).values()
    assert error == 0
    same = np.ones((60, 1))
    assert text_baselines(texts[train], same, texts[test], one[test], number_results.MODELS) == {}
