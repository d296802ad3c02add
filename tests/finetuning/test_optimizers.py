import logging
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import Adafactor, AdamW, Muon

from tests.finetuning.test_param_groups import network_of
from thaw.errors import UserError
from thaw.finetuning.optimizers import PairedOptimizer, build_optimizer
from thaw.finetuning.param_groups import Rates


def _step(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    optimizer.zero_grad()
    network(torch.linspace(-1, 1, 8).reshape(4, 2)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("optimizer", [Adafactor, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.Rprop])
def test_any_optimizer_of_torch_takes_the_groups(optimizer: type[torch.optim.Optimizer]) -> None:
    network = network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2))
    built = build_optimizer(network, optimizer, Rates(0.1, 0.5), weight_decay=0.0)
    before = [parameter.clone() for parameter in network.parameters()]
    _step(built, network)
    assert type(built) is optimizer
    assert all((old != new).any() for old, new in zip(before, network.parameters(), strict=True))


def test_what_muon_does_not_take_is_trained_by_adamw(caplog: pytest.LogCaptureFixture) -> None:
    network = network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2))
    with caplog.at_level(logging.INFO, "thaw"):
        paired = build_optimizer(network, Muon, Rates(0.1, 0.5), weight_decay=0.01)
    assert "2 others are trained by AdamW" in caplog.text
    names = [group["name"] for group in paired.param_groups]
    assert names == ["body/decay", "head/decay", "body/no_decay/AdamW", "head/no_decay/AdamW"]
    alone = network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2))
    alone.load_state_dict(network.state_dict())
    body, head = alone.backbone.body, alone.head
    muon = Muon([{"params": [body.weight], "lr": 0.05}, {"params": [head.weight], "lr": 0.1}], weight_decay=0.01)
    adamw = AdamW([{"params": [body.bias], "lr": 0.05}, {"params": [head.bias], "lr": 0.1}], weight_decay=0.0)
    for _ in range(3):
        _step(paired, network)
        muon.zero_grad()
        _step(adamw, alone)
        muon.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))


def test_a_pair_of_optimizers_goes_on_from_its_state_and_follows_its_rates() -> None:
    networks = [network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2)) for _ in range(2)]
    first, second = (build_optimizer(network, Muon, Rates(0.1), weight_decay=0.01) for network in networks)
    _step(first, networks[0])
    networks[1].load_state_dict(networks[0].state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    for optimizer, network in zip((first, second), networks, strict=True):
        assert isinstance(optimizer, PairedOptimizer)
        for group in optimizer.param_groups:
            group["lr"] = 0.3
        _step(optimizer, network)
    assert all(torch.equal(a, b) for a, b in zip(*(network.parameters() for network in networks), strict=True))
    before = networks[0].head.bias.clone()
    for group in first.param_groups:
        group["lr"] = 0.0
    _step(first, networks[0])
    assert torch.equal(networks[0].head.bias, before)


def test_an_optimizer_without_groups_is_refused() -> None:
    with pytest.raises(UserError, match=r"LBFGS doesn't support per-parameter options.*optimizer=adamw"):
        build_optimizer(network_of(head=nn.Linear(2, 2)), partial(torch.optim.LBFGS), Rates(0.1), weight_decay=0.0)
