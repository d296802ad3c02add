"""Learning rates follow from the kind of network, whatever its configuration is called."""

import logging
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from thaw.config.rates import backbone_steps, explained, rates, warn_of_high_rates
from thaw.errors import UserError
from thaw.finetuning.param_groups import Rates
from thaw.finetuning.phase import Phase, Plan
from thaw.models.backbone import Backbone
from thaw.types import ImageSpec

Config = Callable[..., DictConfig]

OWN_NAME = "backbone._target_=torch.nn.Identity"
NORMED = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
PLAIN = nn.Linear(2, 2)


def of(network: nn.Module, kind: str | None = None) -> Backbone:
    return Backbone(network, {}, 2, ImageSpec(8, 1, (0.0,), (1.0,)), kind=kind)


@pytest.mark.parametrize(
    ("choices", "network", "expected"),
    [
        (("backbone=torchvision",), of(NORMED), Rates(3e-3, 1.0, 0.8)),
        (("backbone=torchvision", "backbone.weights=none"), of(NORMED), Rates(3e-3, 1.0, 1.0)),
        (("backbone=torchvision", "backbone.weights=none", "init_from=run"), of(NORMED), Rates(3e-3, 1.0, 0.8)),
        ((OWN_NAME, "~backbone.weights"), of(PLAIN), Rates(3e-3, 0.1, 0.9)),
        (("backbone._target_=tests.tiny.backbone", "~backbone.weights"), of(NORMED), Rates(3e-3, 1.0, 1.0)),
        ((OWN_NAME,), of(PLAIN, "scratch"), Rates(3e-3, 1.0, 1.0)),
        ((OWN_NAME, "optimizer=sgd"), of(PLAIN), Rates(5e-2, 0.1, 0.9)),
        ((OWN_NAME, "optimizer.lr=7", "optimizer.lr_decay=0.5"), of(PLAIN), Rates(7, 0.1, 0.5)),
        (
            (OWN_NAME, "+optimizer.rates.speech={lr: 1, backbone_lr_scale: 2, lr_decay: 3}"),
            of(PLAIN, "speech"),
            Rates(1, 2, 3),
        ),
    ],
)
def test_rates_follow_the_kind_of_network(
    config: Config, choices: tuple[str, ...], network: Backbone, expected: Rates
) -> None:
    assert rates(config(*choices), network, steps=0) == expected


def test_pretrained_layers_get_lower_rates_in_large_networks_and_in_few_steps(config: Config) -> None:
    with torch.device("meta"):
        large = of(nn.Linear(10_000, 10_000, bias=False))  # 100 million parameters
    pretrained = config(OWN_NAME, "~backbone.weights")
    assert rates(pretrained, large, steps=50).backbone_lr_scale == pytest.approx(0.05)
    assert rates(pretrained, large, steps=10).backbone_lr_scale == pytest.approx(0.01)
    assert explained(pretrained, large, steps=10).endswith(
        "; the backbone's x 0.5, because it has 100 million parameters; the backbone's x 0.2, because it trains for 10 "
        "steps only"
    )
    assert rates(config("backbone=torchvision"), of(NORMED), steps=10) == Rates(3e-3, 0.2, 0.8)
    assert rates(config("backbone=torchvision", "backbone.weights=none"), of(NORMED), steps=10).backbone_lr_scale == 1
    typed = config(OWN_NAME, "~backbone.weights", "optimizer.backbone_lr_scale=1")
    assert rates(typed, large, steps=10).backbone_lr_scale == 1.0
    assert explained(typed, large, steps=10).endswith("BatchNorm")


def test_steps_count_where_the_backbone_trains(config: Config) -> None:
    stages = {"stem": ["stem.weight"], "head": ["head.weight"]}
    plan = Plan([Phase(3, ("head",)), Phase(2, ("*",)), Phase(4, ("stem",))], stages)
    assert backbone_steps(config("data.batch_size=32"), plan, 100) == 6 * 4
    assert backbone_steps(config("data.batch_size=32", "trainer.accumulate_grad_batches=3"), plan, 100) == 6 * 2
    assert backbone_steps(config(), Plan([Phase(3, ("head",))], stages), 100) == 0


def test_a_kind_of_network_without_rates_is_asked_for_them(config: Config) -> None:
    with pytest.raises(
        UserError, match=r"optimizer.lr is null, and optimizer.rates.sounds has none: type optimizer.lr="
    ):
        rates(config(), of(PLAIN, "sounds"), steps=0)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ((), "optimizer.rates.other, for a pretrained network without BatchNorm"),
        (("optimizer.lr=0.5",), "optimizer.lr=0.5; optimizer.rates.other, for a pretrained network without BatchNorm"),
        (
            ("optimizer.lr=0.5", "optimizer.lr_decay=1", "optimizer.backbone_lr_scale=1"),
            "optimizer.lr=0.5; optimizer.backbone_lr_scale=1; optimizer.lr_decay=1",
        ),
    ],
)
def test_where_they_come_from_is_said(config: Config, choices: tuple[str, ...], words: str) -> None:
    assert explained(config(*choices), of(PLAIN), steps=0) == f"learning rates: {words}"


@pytest.mark.parametrize(
    ("choices", "network", "warned"),
    [
        ((), PLAIN, False),
        (("optimizer.lr=3e-3", "optimizer.backbone_lr_scale=1"), PLAIN, True),
        (("optimizer.lr=3e-3", "optimizer.backbone_lr_scale=1"), NORMED, False),
        (("optimizer=sgd", "optimizer.backbone_lr_scale=1"), PLAIN, False),
    ],
)
def test_rates_that_pretrained_layers_without_batchnorm_do_not_survive_are_warned_of(
    config: Config, choices: tuple[str, ...], network: nn.Module, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_high_rates(config(*choices), of(network), rates(config(*choices), of(network), steps=0))
    assert ("type optimizer.backbone_lr_scale=0.03" in caplog.text) == warned
