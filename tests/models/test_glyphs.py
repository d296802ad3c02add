from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from thaw.data.digits import Digits
from thaw.data.image_module import ImageDataModule
from thaw.data.splits import few_per_class
from thaw.models.glyphs import WEIGHTS, glyphs
from thaw.models.weights import read_weights
from thaw.types import BatchRequest

CHOICES: dict[str, Any] = {
    **{"seed": 0, "batch_size": 64, "num_workers": 0, "shuffle": True, "balance": "none", "val_fraction": 0.15},
    **{"test_fraction": 0.15, "labels_per_class": None, "fold": None, "folds": 5},
}


def test_the_shipped_file_is_small_and_fills_the_whole_backbone() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    backbone = glyphs()
    assert list(backbone.stages) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert 200_000 <= sum(p.numel() for p in backbone.network.parameters()) <= 500_000
    tensors = backbone.network.state_dict()
    assert read_weights(WEIGHTS).keys() == tensors.keys()
    assert all(value.isfinite().all() for value in tensors.values())


def test_its_features_have_the_width_it_says() -> None:
    backbone = glyphs(weights=None)
    x = torch.zeros(2, backbone.input_spec.channels, backbone.input_spec.size_px, backbone.input_spec.size_px)
    assert backbone.network(x).shape == (2, backbone.num_features)


@pytest.mark.parametrize(("labels", "gain"), [(1, 0.2), (5, 0.1)])
def test_it_has_learnt_what_helps_with_digits(labels: int, gain: float) -> None:
    def accuracy(weights: str | None) -> float:
        backbone = glyphs(weights)
        data = ImageDataModule(Digits(), **CHOICES)
        data.split()
        data.use_input_spec(backbone.input_spec)
        network = backbone.network.eval()
        with torch.inference_mode():
            batch = data.dataset()[BatchRequest(list(range(len(data.targets))), None)]
            features = network(data.on_after_batch_transfer(batch, 0).inputs).numpy()
        scores = []
        for seed in range(3):
            few = few_per_class(data.splits.train, data.targets, labels, seed)
            probe = LogisticRegression(C=10, max_iter=1000).fit(features[few], data.targets[few])
            scores.append(probe.score(features[data.splits.test], data.targets[data.splits.test]))
        return float(np.mean(scores))

    assert accuracy("default") > accuracy(None) + gain
