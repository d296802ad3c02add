"""Where the network looked."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.reporting.class_results import ClassResults
from thaw.reporting.label_results import LabelResults
from thaw.reporting.looks import heat_maps, occlusion
from thaw.reporting.number_results import NumberResults


class CountsToken(nn.Module):
    """Says class 1 where token 5 is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        seen = ((inputs["input_ids"] == 5) * inputs["attention_mask"]).sum(dim=1).float()
        return torch.stack([torch.zeros_like(seen), self.scale * seen], dim=1)


def test_the_token_that_decides_has_the_weight() -> None:
    inputs = {"input_ids": torch.tensor([[9, 5, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    assert occlusion(CountsToken(), inputs, 1, ClassResults.strength) == [0, 1, 0]
    assert occlusion(CountsToken(), inputs, 0, ClassResults.strength) == [0, -1, 0]


def test_heat_lies_where_the_image_decides_also_in_frozen_stages() -> None:
    pytest.importorskip("pytorch_grad_cam")
    backbone = tiny.smooth()
    network = Network(backbone, linear(backbone.num_features, 2)).eval()
    network.requires_grad_(False)
    inputs = torch.zeros(1, backbone.input_spec.channels, backbone.input_spec.size_px, backbone.input_spec.size_px)
    inputs[..., :2, :2] = 3
    maps = heat_maps(network, inputs, [0])
    assert maps is not None
    assert maps.shape == (1, *inputs.shape[2:])
    assert 0 <= maps.min() <= maps.max() <= 1
    assert all(parameter.grad is None for parameter in network.parameters())
    assert np.isfinite(maps).all()


def test_the_strength_of_a_label_does_not_depend_on_the_others_and_a_number_is_its_own() -> None:
    inputs = {"input_ids": torch.tensor([[9, 5, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    assert occlusion(CountsToken(), inputs, 0, LabelResults.strength) == [0, 0, 0]
    assert occlusion(CountsToken(), inputs, 1, LabelResults.strength) == [0, 1, 0]
    assert occlusion(CountsToken(), inputs, 1, NumberResults.strength) == [0, 1, 0]
    outputs = torch.tensor([[2.0, -1.0]])
    assert torch.allclose(LabelResults.strength(outputs).exp(), outputs.sigmoid())
    assert torch.equal(NumberResults.strength(outputs), outputs)
