"""Cutting a network in two: what can be cut gives the same numbers, what cannot runs whole, and nothing is left behind.

That every library's networks are cut where they can be is in tests/models/test_libraries.py.
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from tests.caching.whole_runs import logged
from tests.conftest import NOISE, TINY
from tests.language import pretrained
from tests.tiny import backbone, chain
from thaw.caching.cut import cut
from thaw.caching.store import entries
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.train import train
from thaw.types import ImageSpec

Config = Callable[..., DictConfig]

SPEC = ImageSpec(8, 1, (0.0,), (1.0,))


def convolution(inputs: int = 4, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def network_of(backbone: Backbone) -> Network:
    return Network(backbone, linear(backbone.num_features, 3, dropout=0.5))


class Parts(nn.Module):
    """Three blocks and a mean; what runs in which order is up to the derived classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = convolution(1), convolution(), convolution()


class Straight(Parts):
    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x))).mean((2, 3))


class Branching(Parts):
    """Looks at the numbers of its input, which nothing that follows its code without numbers can do."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x if x.sum() > 0 else -x)
        return self.third(self.second(x)).mean((2, 3))


class AroundTheSecond(Parts):
    """The first block is used again behind the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.first[0] = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.first(self.second(self.first(x.expand(-1, 4, -1, -1))))).mean((2, 3))


class AtBothEnds(Parts):
    """A parameter beside the blocks is used at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return (self.third(self.second(self.first(x * self.scale))) * self.scale).mean((2, 3))


class ShortCut(Parts):
    """What the first block gives goes around the second one."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.third(x + self.second(x)).mean((2, 3))


class LongShortCut(Parts):
    """What the first block gives goes around all others."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return (self.third(self.second(x)) + x).mean((2, 3))


class OtherInTraining(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return self.third(x * 2 if self.training else x).mean((2, 3))


class JoinsLate(Parts):
    """A parameter of the first stage is used behind the second one alone, as CaiT's class token is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)) * self.scale).mean((2, 3))


class Backwards(Parts):
    """Registered in another order than it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.third = convolution(), convolution(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.second(self.third(x))).mean((2, 3))


def parts(kind: type[Parts], order: str = "first second third", scale: str = "first") -> Backbone:
    """`scale`: the stage that the parameter of this name belongs to."""
    network = kind()
    stages: dict[str, list[str]] = {name: [] for name in order.split()}
    for name, _ in network.named_parameters():
        stages[scale if name == "scale" else name.split(".")[0]].append(name)
    return Backbone(network, stages, 4, SPEC)


def starts(backbone: Backbone) -> list[int | None]:
    """Where the cut for each stage between the first and the head is; every one must give the network's own logits."""
    network, x = network_of(backbone).eval(), torch.randn(3, 1, 8, 8)
    found: list[int | None] = []
    with torch.no_grad():
        for start in range(1, len(network.stages) - 1):
            halves = cut(network, backbone.input_spec, start)
            found.append(None if halves is None else halves.start)
            if halves is not None:
                network.entries[halves.start] = halves.suffix
                activations = halves.prefix(x)
                assert (tuple(activations.shape[1:]), activations.dtype) == (halves.shape, halves.dtype)
                assert torch.equal(network(activations, start=halves.start), network(x))
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Straight, [1, 2]),
        (Branching, [None, None]),
        (AroundTheSecond, [None, 2]),
        (ShortCut, [1, 2]),
        (LongShortCut, [1, 1]),
        (OtherInTraining, [None, None]),
    ],
)
def test_a_cut_is_where_one_tensor_passes_from_earlier_stages_to_later_ones(
    kind: type[Parts], expected: list[int | None]
) -> None:
    assert starts(parts(kind)) == expected


def test_a_parameter_used_at_both_ends_may_be_frozen_with_the_first_stage_and_never_with_the_last() -> None:
    assert starts(parts(AtBothEnds, scale="first")) == [1, 2], "it is frozen where the first stage is"
    assert starts(parts(JoinsLate, scale="first")) == [1, 2]
    assert starts(parts(AtBothEnds, scale="third")) == [None, None], "it trains, and what enters the first stage moves"


def test_stages_count_in_the_order_that_they_are_given_in_not_in_that_of_registration() -> None:
    assert [name for name, _ in Backwards().named_children()] == ["first", "second", "third"]
    assert starts(parts(Backwards, "third second first")) == [1, 2]
    assert starts(parts(Backwards)) == [None, None], "no tensor has these stages before it and those behind it"


def test_what_lies_in_one_stage_is_not_looked_into() -> None:
    last = nn.Sequential(convolution(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    stages = {"stem": convolution(1), "layer1": Branch(), "layer2": convolution(), "layer3": last}
    assert starts(chain(stages, 4, SPEC)) == [1, 2, 3]


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if x.sum() > 0 else -x)


@pytest.mark.parametrize("kind", [Straight, Branching, OtherInTraining])
def test_modes_are_put_back(kind: type[Parts]) -> None:
    network = network_of(parts(kind)).train()
    network.backbone.second.eval()
    before = {name: module.training for name, module in network.named_modules()}
    statistics = network.backbone.first[1].running_mean.clone()
    cut(network, SPEC, 2)
    assert {name: module.training for name, module in network.named_modules()} == before
    assert torch.equal(network.backbone.first[1].running_mean, statistics)


def branching(weights: None = None) -> Backbone:
    return parts(Branching)


def going_around(weights: None = None) -> Backbone:
    return parts(LongShortCut)


def backwards(weights: None = None) -> Backbone:
    return parts(Backwards, "third second first")


@pytest.mark.parametrize(
    ("network", "outputs"),
    [("branching", ["third"]), ("going_around", ["third", "first"]), ("backwards", ["third", "second", "first"])],
)
def test_runs_with_and_without_cuts_are_the_same(
    network: str, outputs: list[str], config: Config, tmp_path: Path, cache_folder: Path
) -> None:
    plan = ("freezing=gradual", "freezing.epochs_per_stage=1")
    same = [*TINY, *NOISE, *plan, f"backbone._target_=tests.caching.test_cut.{network}"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    assert {entry.about["what"] for entry in entries(cache_folder)} == {f"output of {stage}" for stage in outputs}
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)
    with (tmp_path / "with/metrics.csv").open(newline="") as file:
        assert {row["plan/phase"] for row in csv.DictReader(file)} - {""} == {"1.0", "2.0", "3.0", "4.0"}


def texts() -> dict[str, Tensor]:
    """Three texts of 9, 4 and 1 tokens, padded on the right to 16."""
    ids = torch.randint(4, 32, (3, 16), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < torch.tensor([9, 4, 1])[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def hooks(network: nn.Module) -> list[Any]:
    """All that a cut could leave behind: hooks, and forwards of single objects."""
    return [
        [list(module._forward_hooks), list(module._forward_pre_hooks), vars(module).get("forward")]
        for module in network.modules()
    ]


def text_network(folder: Path, kind: str) -> tuple[Network, Backbone]:
    pytest.importorskip("transformers")
    from thaw.models.huggingface import huggingface

    backbone = huggingface(str(pretrained(folder, kind)))
    return network_of(backbone).eval(), backbone


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_cutting_a_text_network_leaves_nothing_in_it(kind: str, tmp_path: Path) -> None:
    network, backbone = text_network(tmp_path, kind)
    layer = network.get_submodule(network.stages["layer0"].modules[0])
    layer.forward = partial(type(layer).forward, layer)  # as other tools do
    before = hooks(network)
    with torch.no_grad():
        halves = cut(network, backbone.input_spec, 2)
        assert halves is not None
        tokens = halves.prefix(texts())
        assert hooks(network) == before
        assert torch.equal(halves.suffix(tokens), network.features(texts()))
        assert hooks(network) == before


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("half", ["prefix", "suffix"])
def test_neither_does_a_call_that_fails(half: str, failing: int, tmp_path: Path) -> None:
    network, backbone = text_network(tmp_path, "bert")
    halves = cut(network, backbone.input_spec, 2)
    assert halves is not None
    tokens = halves.prefix(texts())
    broken = network.backbone.encoder.layer[failing].attention if half == "suffix" else network.backbone.embeddings
    broken.register_forward_pre_hook(lambda *_: 1 / 0)
    before = hooks(network)
    if half == "prefix":
        with pytest.raises(ZeroDivisionError):
            halves.prefix(texts())
    elif failing == 1:
        with pytest.raises(ZeroDivisionError):
            halves.suffix(tokens)
    else:
        halves.suffix(tokens)  # that layer is skipped
    assert hooks(network) == before


def test_a_network_whose_code_fails_without_its_layers_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, backbone = text_network(tmp_path, "bert")
    before = hooks(network)
    calls = iter(range(100))
    forward = type(network.backbone.embeddings).forward

    def fails_in_the_suffix(*args: Any, **keywords: Any) -> Tensor:
        if next(calls) == 2:  # 0: the whole network, 1: the prefix
            raise RuntimeError("it needs its layers")
        return forward(*args, **keywords)

    monkeypatch.setattr(type(network.backbone.embeddings), "forward", fails_in_the_suffix)
    assert cut(network.train(), backbone.input_spec, 2) is None
    assert next(calls) == 3
    assert hooks(network) == before
    assert all(module.training for module in network.modules())


def test_what_the_cut_was_tried_with_is_not_in_the_weights() -> None:
    network = network_of(backbone())
    names = list(network.state_dict())
    halves = cut(network, backbone().input_spec, 1)
    assert halves is not None
    network.entries[1] = halves.suffix
    assert list(network.state_dict()) == names
