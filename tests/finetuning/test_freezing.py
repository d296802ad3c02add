import torch
from torch import nn

from tests.tiny import backbone
from thaw.finetuning.freezing import freeze_all_but, keep_frozen_in_eval


def stages() -> nn.ModuleDict:
    return nn.ModuleDict(backbone().stages)


def test_frozen_stages_have_no_gradient_and_evaluate() -> None:
    network = stages()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert freeze_all_but(network, frozenset({"layer2"}))
    for name, stage in network.items():
        trains = name == "layer2"
        assert all(module.training == trains for module in stage.modules())
        assert all(p.requires_grad == trains and (p.grad is not None) == trains for p in stage.parameters())
    assert not freeze_all_but(network, frozenset({"layer2"})), "nothing changed the second time"


def test_a_stray_train_does_not_wake_frozen_stages() -> None:
    network = stages()
    freeze_all_but(network, frozenset({"layer2"}))
    network.train()
    keep_frozen_in_eval(network)
    assert [stage.training for stage in network.values()] == [False, False, True]
