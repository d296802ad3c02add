"""Baselines that train no network."""

import numpy as np
import pytest

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
