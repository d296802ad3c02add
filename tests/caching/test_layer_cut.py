"""Networks with a list of layers are cut in front of each layer, also if the list has only one."""

import pytest
import torch

from thaw.caching.layer_cut import text_cuts
from thaw.models.gru import gru
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.types import TokenStates


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_gru_is_cut_in_front_of_every_layer(num_layers: int) -> None:
    backbone = gru(None, "words", 50, 6, 4, num_layers, 0.0, "mean", texts=["one two three four five six seven"])
    network = Network(backbone, linear(backbone.num_features, 3, 0.0)).eval()
    inputs = {"input_ids": torch.tensor([[2, 3, 4], [5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    with torch.no_grad():
        for number in range(1, num_layers + 1):
            cut = next(text_cuts(network, backbone.input_spec, number))
            assert cut.start == number
            assert isinstance(cut.prefix(inputs), TokenStates)
            assert torch.equal(cut.suffix(cut.prefix(inputs)), network.features(inputs))
