"""What every adapter hands over, whatever library its network came from."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class InputSpec:
    """How a network wants its images: the data transforms are built from it."""

    size_px: int
    """Height and width of the input, pixels."""
    channels: int
    """1: grey, 3: RGB."""
    mean: tuple[float, ...]
    """Per channel, for values in 0..1."""
    std: tuple[float, ...]
    """Per channel, for values in 0..1."""
    interpolation: str = "bilinear"
    """How images are resized: nearest, bilinear or bicubic."""
    crop_ratio: float = 1.0
    """Part of the resized image that the evaluation's centre crop keeps."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head, cut into stages."""

    stages: dict[str, nn.Module]
    """Input to output; the last one ends in features of shape (B, D)."""
    num_features: int
    """D, the width of those features."""
    input_spec: InputSpec
