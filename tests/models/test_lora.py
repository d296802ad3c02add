"""Adapters in networks of every kind: where they are, that they learn, and that they can be taken out again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.language import pretrained
from thaw.errors import UserError
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.lora import lora
from thaw.models.network import Network
from thaw.models.shapes import example_inputs
from thaw.types import ImageSpec, TokenSpec

pytest.importorskip("peft")


class Attention(nn.Module):
    """Images as four tokens in torch's own attention, whose last layer is never called; and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 8)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.reshape(len(images), 4, 16)
        return self.mlp(self.attention(tokens, tokens, tokens)[0].mean(1))


def attention(folder: Path) -> Backbone:
    return tiny.chain(
        {"stem": nn.Conv2d(1, 1, 3, padding=1), "layer1": Attention()}, 8, ImageSpec(8, 1, (0.0,), (1.0,))
    )


def hugging_face(kind: str) -> Callable[[Path], Backbone]:
    def build(folder: Path) -> Backbone:
        from thaw.models.huggingface import huggingface

        return huggingface(str(pretrained(folder / kind, kind)))

    return build


def of_timm(name: str, **options: Any) -> Callable[[Path], Backbone]:
    def build(folder: Path) -> Backbone:
        pytest.importorskip("timm")
        from thaw.models.timm import timm

        return timm(name, None, image_size_px=32, options=options)

    return build


NETWORKS: dict[str, tuple[Callable[[Path], Backbone], set[str]]] = {
    "bert": (hugging_face("bert"), {"query", "key", "value", "dense"}),
    "gpt2": (hugging_face("gpt2"), {"c_attn", "c_proj", "c_fc"}),  # its layers are no torch.nn.Linear
    "vit": (of_timm("vit_tiny_patch16_224", depth=2), {"qkv", "proj", "fc1", "fc2"}),
    "beit": (of_timm("beit_base_patch16_224", depth=2, embed_dim=32, num_heads=2), {"proj", "fc1", "fc2"}),
    "attention": (attention, {"mlp"}),
    "convolutions": (lambda folder: tiny.backbone(dropout=0.0), {"0"}),
}
"""What builds a network, and the last words of the layers that get adapters."""


def sample(backbone: Backbone) -> Any:
    """Two samples that differ."""
    inputs = example_inputs(backbone.input_spec)
    if isinstance(backbone.input_spec, TokenSpec):
        return {**inputs, "input_ids": torch.arange(16).reshape(2, 8) + 4}
    return torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", NETWORKS)
def test_adapters_begin_with_the_network_learn_and_are_merged(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, words = NETWORKS[kind][0](tmp_path), NETWORKS[kind][1]
    head = linear(plain.num_features, 3)
    inputs, names = sample(plain), {name for name, _ in plain.network.named_parameters()}
    before = Network(plain, head).eval()(inputs)
    adapted = lora(plain, rank=2, alpha=4, dropout=0.1)
    network = Network(adapted, head).eval()
    assert torch.equal(network(inputs), before), "nothing is learnt yet"
    # Of pretrained parameters, none may train; the adapters are in the stages of their layers.
    may_train = network.stage_addresses()
    assert not any("base_layer" in address for addresses in may_train.values() for address in addresses)
    for stage, addresses in may_train.items():
        assert all(stage == "head" or ".lora_" in address for address in addresses)
        assert all(address.startswith(stage) for address in addresses)
    layers = {address.partition(".lora_")[0].rpartition(".")[2] for own in may_train.values() for address in own}
    assert layers - {"weight", "bias", "head"} == words
    # Each of them learns: a layer whose weights alone are used would leave its adapter without a gradient.
    network(inputs).square().sum().backward()
    outer = {name: p for name, p in network.named_parameters() if ".lora_B." in name}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in outer.values())
    with torch.no_grad():
        for parameter in outer.values():
            parameter.normal_(std=0.1)
    learnt = network(inputs)
    assert not torch.allclose(learnt, before, atol=1e-3)
    assert adapted.adapter is not None
    assert torch.allclose(Network(adapted.adapter.merge(), head).eval()(inputs), learnt, atol=1e-5)
    assert {name for name, _ in plain.network.named_parameters()} == names


def test_targets_are_patterns_of_stages_and_paths(tmp_path: Path) -> None:
    def adapted(*targets: str) -> list[str]:
        backbone = lora(hugging_face("bert")(tmp_path), 2, 4, 0.0, targets)
        names = (name for own in backbone.stages.values() for name in own if "lora_A" in name)
        return [name.partition(".lora_A")[0].removeprefix("encoder.layer.") for name in names]

    assert adapted("*.query", "*.value", "!layer0") == ["1.attention.self.query", "1.attention.self.value"]
    assert adapted("layer1", "!*.dense") == [f"1.attention.self.{name}" for name in ("query", "key", "value")]
    for targets, words in ((["*.qkv", "layer1"], r"nothing matches '\*.qkv'"), (["layer1", "!*"], "no layer is left")):
        with pytest.raises(UserError, match=rf"adapter.targets: {words}.*embeddings, layer0, layer1.*layer0.encoder"):
            adapted(*targets)
    with pytest.raises(UserError, match=r"this network calls none"):
        lora(tiny.made_up(["norm pool"]), 2, 4, 0.0)
