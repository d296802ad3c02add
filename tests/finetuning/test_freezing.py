import pytest
import torch
from torch import nn

from tests.tiny import backbone
from thaw.finetuning.freezing import freeze_all_but, keep_frozen_in_eval
from thaw.models.heads import linear
from thaw.models.network import Network


def network() -> Network:
    return Network(backbone(), linear(16, 3, dropout=0.5))


def modules(network: Network, stage: str) -> list[nn.Module]:
    return [module for path in network.stages[stage].modules for module in network.get_submodule(path).modules()]


def test_frozen_stages_have_no_gradient_and_evaluate() -> None:
    tiny = network()
    trained = frozenset(tiny.stage_addresses()["layer2"])
    for parameter in tiny.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert freeze_all_but(tiny, trained)
    for stage, parameters in tiny.stage_parameters().items():
        trains = stage == "layer2"
        assert all(module.training == trains for module in modules(tiny, stage))
        assert all(p.requires_grad == trains and (p.grad is not None) == trains for p in parameters.values())
    assert not freeze_all_but(tiny, trained), "nothing changed the second time"


def test_of_a_stage_that_trains_in_part_all_modules_do() -> None:
    tiny = network()
    freeze_all_but(tiny, frozenset(tiny.stage_addresses()["layer2"]))
    assert freeze_all_but(tiny, frozenset({"layer2.layer2.0.0.bias"})), "another part of the same stage"
    assert [name for name, p in tiny.named_parameters() if p.requires_grad] == ["backbone.layer2.0.0.bias"]
    for wake in (lambda: None, tiny.train):
        wake()
        keep_frozen_in_eval(tiny)
        modes = [{module.training for module in modules(tiny, stage)} for stage in tiny.stages]
        assert modes == [{False}, {False}, {True}, {False}]


def test_a_stray_train_does_not_wake_frozen_stages_and_eval_puts_all_to_sleep() -> None:
    tiny = network()
    freeze_all_but(tiny, frozenset(tiny.stage_addresses()["layer2"]))
    tiny.train()
    keep_frozen_in_eval(tiny)
    assert [all(m.training for m in modules(tiny, stage)) for stage in tiny.stages] == [False, False, True, False]
    assert not tiny.backbone.training, "it holds frozen stages, too"
    tiny.eval()
    keep_frozen_in_eval(tiny)
    assert not any(module.training for module in tiny.modules())


@pytest.mark.parametrize("keeps", [False, True])
def test_batchnorm_layers_of_a_backbone_that_trains_may_keep_their_statistics(keeps: bool) -> None:
    tiny = Network(backbone(), nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3)))
    tiny.keeps_statistics = keeps
    freeze_all_but(tiny, frozenset(tiny.addresses.values()))
    before = {name: buffer.clone() for name, buffer in tiny.named_buffers() if "running" in name}
    tiny.train()
    keep_frozen_in_eval(tiny)
    tiny(torch.randn(4, 1, 8, 8)).sum().backward()
    moved = {name for name, buffer in tiny.named_buffers() if name in before and not torch.equal(buffer, before[name])}
    assert moved == {name for name in before if not keeps or name.startswith("head")}
    assert all(parameter.grad is not None for parameter in tiny.parameters()), "their weights train in any case"
    assert any(isinstance(module, nn.Dropout) and module.training for module in tiny.backbone.modules())
