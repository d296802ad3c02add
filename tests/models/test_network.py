from pathlib import Path

import pytest
import torch
from torch import nn

from tests.language import pretrained
from tests.tiny import backbone, chain
from thaw.finetuning.freezing import freeze_all_but
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.huggingface import huggingface
from thaw.models.network import Network
from thaw.models.shapes import output_shapes
from thaw.models.timm import timm
from thaw.models.torchvision import torchvision
from thaw.types import ImageSpec

SPEC = ImageSpec(8, 1, (0.0,), (1.0,))


def test_features_may_enter_the_head_and_activations_where_the_cache_says() -> None:
    network = Network(backbone(), linear(16, 3, dropout=0.5)).eval()
    assert list(network.stages) == ["stem", "layer1", "layer2", "head"]
    x = torch.randn(2, 1, 8, 8)
    logits = network(x)
    assert logits.shape == (2, 3)
    assert torch.equal(network(network.features(x), start=3), logits)
    stem, *others = network.backbone
    network.entries[1] = nn.Sequential(*others)
    assert torch.equal(network(stem(x), start=1), logits)
    assert {name.split(".")[0] for name in network.state_dict()} == {"backbone", "head"}


def test_every_module_belongs_to_the_stages_of_its_parameters_or_to_the_one_before_it() -> None:
    network = Network(backbone(), linear(16, 3, dropout=0.5))
    stages = {id(module): names for module, names in network.modules_with_stages()}
    assert stages[id(network.backbone)] == {"stem", "layer1", "layer2"}
    assert stages[id(network.backbone.layer2[1])] == {"layer2"}, "a pooling layer has no parameters"
    assert stages[id(network.head[0])] == {"head"}, "dropout in front of the head's linear layer"
    assert network.stages["layer1"].modules == ("backbone.layer1",)


def test_an_address_is_the_stage_and_the_library_s_name_and_says_norm_of_a_norm() -> None:
    class Wrapper(nn.Module):
        """As FSDP puts one around a module."""

        def __init__(self, module: nn.Module):
            super().__init__()
            self._fsdp_wrapped_module = module

    network = Network(
        torchvision("resnet18", None, image_size_px=32), nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 3))
    )
    addresses = network.addresses
    assert addresses["backbone.layer1.0.bn1.weight"] == "layer1.layer1.0.bn1.norm.weight"
    assert addresses["backbone.layer2.0.downsample.1.bias"] == "layer2.layer2.0.downsample.1.norm.bias"
    assert addresses["backbone.layer1.0.conv1.weight"] == "layer1.layer1.0.conv1.weight"
    assert network.stage_addresses()["head"] == [
        "head.0.norm.weight",
        "head.0.norm.bias",
        "head.1.weight",
        "head.1.bias",
    ]
    assert network.stage_addresses()["stem"] == ["stem.conv1.weight", "stem.bn1.norm.weight", "stem.bn1.norm.bias"]

    network.backbone.layer1 = Wrapper(network.backbone.layer1)
    freeze_all_but(network, frozenset({"layer1.layer1.0.bn1.norm.weight"}))
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == ["backbone.layer1._fsdp_wrapped_module.0.bn1.weight"]


def test_where_a_path_says_norm_nothing_is_inserted(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    for made, name, address in (
        (timm("vit_tiny_patch16_224", None, image_size_px=32), "blocks.0.norm1.bias", "blocks0.blocks.0.norm1.bias"),
        (timm("mobilenetv2_035", None, image_size_px=32), "bn2.weight", "blocks6.bn2.norm.weight"),
        (
            huggingface(str(pretrained(tmp_path / "bert", "bert"))),
            "embeddings.LayerNorm.weight",  # patterns tell upper from lower case
            "embeddings.embeddings.LayerNorm.norm.weight",
        ),
        (
            huggingface(str(pretrained(tmp_path / "llama", "llama"))),
            "layers.0.input_layernorm.weight",
            "layer0.layers.0.input_layernorm.weight",
        ),
    ):
        network = Network(made, linear(made.num_features, 3, dropout=0.0))
        assert network.addresses[f"backbone.{name}"] == address


def test_a_parameter_in_two_stages_or_in_none_is_refused() -> None:
    shared = nn.Linear(2, 2)
    tied = chain({"first": nn.Sequential(nn.ReLU(), shared), "second": nn.Sequential(shared)}, 2, SPEC)
    with pytest.raises(ValueError, match=r"'backbone.second.0.weight' belongs to the stages 'first' and 'second'"):
        Network(tied, nn.Linear(2, 2))
    plain = backbone()
    del plain.stages["layer1"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"'backbone.layer1.0.weight' belongs to no stage"):
        Network(plain, nn.Linear(2, 2))


def test_a_module_under_several_names_belongs_to_one_stage() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Conv2d(1, 1, 3, padding=1)
            self.first, self.second = (nn.ModuleDict({"own": nn.Conv2d(1, 1, 1)}) for _ in range(2))
            self.first["position"] = self.second["position"] = self.position

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in (self.first, self.second):
                x = part["own"](part["position"](x))
            return x.mean((2, 3)).repeat(1, 2)

    stages = {"stem": ["position.weight", "position.bias"]}
    stages |= {name: [f"{name}.own.weight", f"{name}.own.bias"] for name in ("first", "second")}
    network = Network(Backbone(Shared(), stages, 2, SPEC), nn.Linear(2, 2))
    named = {id(module): names for module, names in network.modules_with_stages()}
    assert named[id(network.backbone.position)] == {"stem"}
    assert named[id(network.backbone.second)] == {"stem", "second"}
    assert named[id(network.backbone.second.own)] == {"second"}
    output_shapes(network, SPEC)
    assert not any(parameter.is_meta for parameter in network.parameters()), "it is as it was"


def test_stages_have_the_order_they_are_given_in() -> None:
    made = backbone()
    stages = dict(reversed(made.stages.items()))
    network = Network(Backbone(made.network, stages, 16, made.input_spec), linear(16, 3, dropout=0.5))
    assert list(network.stages) == list(network.stage_parameters()) == ["layer2", "layer1", "stem", "head"]
    assert list(network.stage_addresses()) == list(network.stages)
    assert list(network.stage_tensors()) == list(network.stages)
