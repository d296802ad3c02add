"""The backbone in the package: a small residual network trained on rendered letters and digits (docs/glyphs.md)."""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.stages import child_stages
from thaw.models.weights import load_weights, weights_choice
from thaw.types import ImageSpec

WEIGHTS = Path(__file__).with_name("glyphs.safetensors")
INPUT_SPEC = ImageSpec(size_px=16, channels=1, mean=(0.3,), std=(0.37,))
WIDTHS = (24, 24, 48, 96, 128)
"""Channels after stem, stage1 ... stage4."""

RECIPE = RebuildRecipe(
    imports=["thaw.models.glyphs", "thaw.models.network"],
    build=["network = thaw.models.network.Network(thaw.models.glyphs.glyphs(weights=None), {head})"],
    head=None,
)


def glyphs(weights: str | Path | None = "default") -> Backbone:
    """Residual network: grey images (B, 1, 16, 16) -> features (B, 128).

    Args:
        weights: "default" (in the package), None (random), or a file.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_norm(1, WIDTHS[0], stride=1).append(nn.ReLU()))
    for number, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
        layers[f"stage{number}"] = Residual(inputs, outputs, stride=1 if number == 1 else 2)
    layers["stage4"] = nn.Sequential(layers["stage4"], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(layers)
    if (choice := weights_choice(weights)) is not None:
        load_weights(network, WEIGHTS if choice == "default" else choice)
    return Backbone(network, child_stages(network), WIDTHS[-1], INPUT_SPEC, recipe=RECIPE)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2016): (B, C, H, W) -> (B, C', H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            _conv_norm(inputs, outputs, stride), nn.ReLU(), _conv_norm(outputs, outputs, stride=1)
        )
        keeps_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if keeps_shape else _conv_norm(inputs, outputs, stride, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


def _conv_norm(inputs: int, outputs: int, stride: int, kernel_size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
