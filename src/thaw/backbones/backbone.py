"""What every adapter hands over, whatever library its network came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class ImageSpec:
    """How a network wants its images: the data transforms are built from it."""

    things: ClassVar[str] = "images"

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
    squash: bool = False
    """Whether evaluation makes images square by squeezing them, instead of by cutting their longer side."""

    def __post_init__(self) -> None:
        faults = []
        if self.size_px < 1:
            faults.append(f"size_px is at least 1, not {self.size_px}")
        if self.channels not in (1, 3):
            faults.append(f"channels is 1 or 3, not {self.channels}")
        if not len(self.mean) == len(self.std) == self.channels:
            faults.append(f"mean {list(self.mean)} and std {list(self.std)} have one number for each channel")
        if not all(value > 0 for value in self.std):
            faults.append(f"std is above 0, not {list(self.std)}")
        if self.interpolation not in INTERPOLATIONS:
            faults.append(f"interpolation is {', '.join(INTERPOLATIONS)}, not '{self.interpolation}'")
        if not 0 < self.crop_ratio <= 1:
            faults.append(f"crop_ratio is above 0 and at most 1, not {self.crop_ratio}")
        if faults:
            raise ValueError(f"the input of the backbone: {'; '.join(faults)}")

    @property
    def resize_px(self) -> int:
        """The shorter side (`squash`: both sides) of an image before its centre is cut out, pixels."""
        return int(self.size_px / self.crop_ratio + 1e-6)  # as timm does; torchvision's ratio is of whole pixels


@dataclass(frozen=True)
class TokenSpec:
    """How a network wants its texts."""

    things: ClassVar[str] = "texts"

    tokenizer: str
    """What `tokenizer.json` holds, the format of Hugging Face's tokenizers."""
    pad_id: int
    """The token that short texts are filled up with, on the right."""
    max_length_tokens: int
    """Longer texts are cut, on the right; what the tokenizer adds counts."""


InputSpec = ImageSpec | TokenSpec


@dataclass(frozen=True)
class Library:
    """How to build the same network where exported weights are loaded: by its own library, without thaw."""

    imports: Sequence[str]
    """Modules."""
    build: Sequence[str]
    """Lines of Python that make `network`, with `{num_classes}` where the number of classes goes."""
    head: str | None
    """Where the head's linear layer is in it; None where `network` is a thaw.network.Network."""
    names: Mapping[str, str] = field(default_factory=dict)
    """For prefixes of the stages' tensors, the ones in `network`; for all others it is what follows the stage."""
    logits: str = "network(inputs)"
    """What gives logits (B, C) of `inputs`, of which texts have two: {"input_ids": ..., "attention_mask": ...}."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head, cut into stages."""

    stages: dict[str, nn.Module]
    """Input to output; the last one ends in features of shape (B, D)."""
    num_features: int
    """D, the width of those features."""
    input_spec: InputSpec
    library: Library | None = None
    """None where nobody else can build it: it is exported whole only."""
    settings: Mapping[str, Any] | None = None
    """What it takes to build the same again, beside the keywords and the input spec; plain values."""
