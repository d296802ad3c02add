from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.tiny import backbone, chain
from thaw.finetuning.optimizers import build_optimizer
from thaw.finetuning.param_groups import Rates, decayed_names, param_groups
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.types import ImageSpec


def network_of(head: nn.Module, **stages: nn.Module) -> Network:
    """A network of these stages; parts without parameters lie between them."""
    return Network(chain(stages, 2, ImageSpec(8, 1, (0.0,), (1.0,))), head)


def test_every_parameter_is_in_one_group_and_rates_fall_from_the_head_down() -> None:
    network = Network(backbone(), linear(16, 3, dropout=0.5))
    groups = param_groups(network, Rates(1.0, 1.0, 0.5), weight_decay=0.1)
    assert [group["name"] for group in groups] == [f"{s}/{k}" for s in network.stages for k in ("decay", "no_decay")]
    assert [group["lr"] for group in groups] == [0.125, 0.125, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in network.parameters())
    for group in groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_backbone_s_rates_are_scaled_and_fall_with_each_stage() -> None:
    groups = param_groups(
        network_of(a=nn.Linear(2, 2), b=nn.Linear(2, 2), head=nn.Linear(2, 2)),
        Rates(1.0, backbone_lr_scale=0.1, lr_decay=0.5),
        weight_decay=0.0,
    )
    rates = {group["name"].split("/")[0]: group["lr"] for group in groups}
    assert rates == {"a": pytest.approx(0.025), "b": pytest.approx(0.05), "head": 1.0}


def test_depth_is_the_place_among_the_stages_and_not_that_of_registration() -> None:
    made = backbone()
    stages = dict(reversed(made.stages.items()))
    network = Network(Backbone(made.network, stages, 16, made.input_spec), linear(16, 3, dropout=0.5))
    rates = {group["name"].split("/")[0]: group["lr"] for group in param_groups(network, Rates(1.0, 1.0, 0.5), 0.0)}
    assert list(rates.items()) == [("layer2", 0.125), ("layer1", 0.25), ("stem", 0.5), ("head", 1.0)]


def test_the_optimizer_skips_frozen_parameters_and_keeps_no_state_for_them() -> None:
    network = network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2))
    network.backbone.requires_grad_(False)
    before = network.backbone.body.weight.clone()
    optimizer = build_optimizer(network, partial(torch.optim.AdamW), Rates(0.1), weight_decay=0.5)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(network.backbone.body.weight, before)
    assert set(optimizer.state) == set(network.head.parameters())


def test_sgd_takes_the_same_groups() -> None:
    optimizer = build_optimizer(network_of(head=nn.Linear(2, 2)), torch.optim.SGD, Rates(0.1), weight_decay=0.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
        self.back.weight = self.there.weight


FILLED: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(2, 3),
    lambda: nn.Linear(2, 3, bias=False),
    lambda: nn.Conv2d(1, 2, 3),
    lambda: nn.BatchNorm2d(2),
    lambda: nn.Embedding(3, 2),
    lambda: nn.MultiheadAttention(2, 1),
    lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2))),
    Tied,
]
EMPTY: list[Callable[[], nn.Module]] = [nn.Identity, nn.Dropout, lambda: nn.BatchNorm2d(2, affine=False)]


@given(
    backbone=st.lists(st.sampled_from([*FILLED, *EMPTY]), max_size=6),
    head=st.sampled_from(FILLED),
    lr=st.floats(1e-6, 1),
    scale=st.floats(0.01, 1),
    lr_decay=st.floats(0.1, 1),
    weight_decay=st.floats(1e-6, 1),
)
def test_any_network_s_parameters_are_in_one_group_each_at_the_rate_of_their_depth(
    backbone: list[Callable[[], nn.Module]],
    head: Callable[[], nn.Module],
    lr: float,
    scale: float,
    lr_decay: float,
    weight_decay: float,
) -> None:
    modules = {f"stage{n}": make() for n, make in enumerate(backbone)} | {"head": head()}
    groups = param_groups(network_of(**modules), Rates(lr, scale, lr_decay), weight_decay)
    owner = {parameter: stage for stage, module in modules.items() for parameter in module.parameters()}
    members = [parameter for group in groups for parameter in group["params"]]
    assert len(members) == len(set(members)) == len(owner)
    assert set(members) == set(owner)

    expected, rate = {}, lr * scale
    for stage in reversed(list(modules)):
        if stage in owner.values():
            expected[stage] = rate if expected else lr
            rate *= lr_decay
    for group in groups:
        stage, kind = group["name"].split("/")
        assert {owner[parameter] for parameter in group["params"]} == {stage}
        assert group["lr"] == pytest.approx(expected[stage], rel=1e-9)
        assert group["weight_decay"] == {"decay": weight_decay, "no_decay": 0.0}[kind]
        assert {parameter.ndim >= 2 for parameter in group["params"]} == {kind == "decay"}
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates), "from the input to the head they rise"
    assert len({group["name"] for group in groups}) == len(groups)


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_all_rates_follow_the_number_of_processes_by_the_rule(rule: str, factor: float) -> None:
    network = network_of(body=nn.Linear(2, 2), head=nn.Linear(2, 2))
    optimizer = build_optimizer(network, torch.optim.SGD, Rates(0.1, 0.5), 0.0, lr_by_processes=rule, world_size=4)
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.05 * factor] * 2 + [0.1 * factor] * 2)


def test_what_decays_is_settled_before_parameters_are_cut_into_pieces_of_one_dimension() -> None:
    network = network_of(head=nn.Linear(2, 3))
    decayed = decayed_names(network)
    for parameter in network.parameters():  # as FSDP does
        parameter.data = parameter.data.flatten()[:2]
    groups = param_groups(network, Rates(0.1), 0.5, decayed)
    assert {group["name"]: group["params"] for group in groups} == {
        "head/decay": [network.head.weight],
        "head/no_decay": [network.head.bias],
    }
