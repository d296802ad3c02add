import pytest
import torch
from torch import nn

from tests.tiny import backbone
from thaw.models.network import Network, new_head


def test_stages_run_in_order_and_any_of_them_can_be_entered() -> None:
    network = Network(backbone().stages, new_head(16, 3, dropout=0.5)).eval()
    assert network.stage_names == ["stem", "layer1", "layer2", "head"]
    x = torch.randn(2, 1, 8, 8)
    whole = network(x)
    assert whole.shape == (2, 3)
    for start, stage in enumerate(network.stages.values()):
        assert torch.equal(network(x, start=start), whole)
        x = stage(x)
    assert torch.equal(network(x, start=len(network.stages)), whole)


def test_a_parameter_in_two_stages_is_refused() -> None:
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"'second.0.weight' belongs to the stages 'first' and 'second'"):
        Network({"first": nn.Sequential(nn.ReLU(), shared), "second": nn.Sequential(shared)}, nn.Linear(2, 2))
