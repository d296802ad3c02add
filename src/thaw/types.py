"""Values that the packages of thaw pass to each other. Imports nothing of thaw but its errors.

B: batch size, C: classes or channels, H and W: height and width in pixels, T: tokens of the longest text.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thaw.errors import UserError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

Indices = NDArray[np.int64]
"""Sample indices, (N,)."""


class Batch(NamedTuple):
    """One batch, as every loader yields it."""

    inputs: Tensor | dict[str, Tensor]
    """Raw inputs of the network where `start` is 0: images (B, C, H, W) or a dict of token tensors (B, T). Otherwise
    cached activations that enter at stage `start`."""
    target: Tensor
    """Class indices (B,); of several labels 0 or 1, of numbers their values, float32 (B, C)."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    """Index of each sample in its data set, (B,)."""
    start: int = 0
    """Stage at which `inputs` enter the network; 0 means raw inputs."""
    view: int | None = None
    """Number of the augmented version of the samples; None for evaluation."""
    total: int | None = None
    """Samples of this batch over all processes; None if this process has all of them."""


class BatchRequest(NamedTuple):
    """Which samples make up a batch: what the sampler yields and a dataset turns into a `Batch`."""

    indices: list[int]
    """Sample indices."""
    view: int | None
    """Number of the augmented version of the samples; None for evaluation."""
    total: int | None = None
    """Samples of this batch over all processes; None if this process has all of them."""


class StepOutput(NamedTuple):
    """Result of one step. Callbacks are given its fields as a dict: Lightning takes no other form."""

    loss: Tensor
    """Mean loss of the batch, a scalar."""
    output: Tensor
    """Output of the network, (B, C)."""
    target: Tensor
    """Target of the batch; of mixed images, class probabilities (B, C)."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    """Index of each sample in its data set, (B,)."""


class TokenStates(NamedTuple):
    """Hidden states of a batch of texts between two layers."""

    states: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T), 1 for tokens and 0 for padding."""


@dataclass(frozen=True)
class ImageSpec:
    """What a network expects of its images. The transforms of the data are built from it.

    Raises:
        UserError: naming every field that is out of range.
    """

    things: ClassVar[str] = "images"
    """What the samples are called in messages."""

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
    """Share of the resized image that the centre crop of evaluation keeps, per side."""
    squash: bool = False
    """Whether evaluation resizes both sides to the same length instead of cropping the longer one."""
    max_value: int | None = None
    """Value of grey 16-bit images that is white, set by the data; None for 65535."""

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.size_px, int) or self.size_px < 1:
            faults.append(f"size_px is a whole number from 1 on (images are square), not {self.size_px}")
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
            raise UserError(f"the input of the backbone: {'; '.join(faults)}")

    @property
    def shape(self) -> str:
        """Shape of one input, for people."""
        return f"{self.channels} x {self.size_px} x {self.size_px}"

    @property
    def resize_px(self) -> int:
        """Length of the shorter side (of both sides with `squash`) before the centre crop, pixels."""
        return int(self.size_px / self.crop_ratio + 1e-6)  # as timm does; torchvision's ratio is of whole pixels


@dataclass(frozen=True)
class TokenSpec:
    """What a network expects of its texts."""

    things: ClassVar[str] = "texts"
    """What the samples are called in messages."""

    tokenizer: str
    """Content of a `tokenizer.json`, the format of Hugging Face's tokenizers."""
    pad_id: int
    """Token id that pads short texts, on the right."""
    max_length_tokens: int
    """Longer texts are truncated on the right, of pairs the longer text first. Special tokens count."""
    pairs: bool | None = None
    """Whether each sample is a pair of texts; None until the data say."""
    token_types: int = 0
    """Number of texts that the network tells apart by `token_type_ids`; 0 if it takes none."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's inputs, each (B, T)."""
        return ("input_ids", "attention_mask", *(("token_type_ids",) if self.pairs and self.token_types else ()))

    @property
    def vocabulary(self) -> Any:
        """What says which token has which id, as the tokenizer's kind stores it."""
        return json.loads(self.tokenizer)["model"].get("vocab")

    @property
    def shape(self) -> str:
        """Shape of one input, for people."""
        return f"up to {self.max_length_tokens:,} tokens"


InputSpec = ImageSpec | TokenSpec
"""What a network expects of its inputs."""
