"""From images to what a network takes, on torchvision v2. Pillow resizes, so that results do not depend on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F  # noqa: N812  # its usual name

from thaw.types import ImageSpec

AUGMENTATIONS = ("none", "light", "strong")
ROOM = 2
"""For random crops: the shorter side of an image that is kept for them is at most so many times the evaluation's."""

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class ResizeTransform:
    """How a transform begins: steps that draw no random number, and change nothing where they were taken before."""

    channels: int
    """1: grey, 3: RGB."""
    side_px: int
    """Of the shorter side, or of both."""
    interpolation: str
    squash: bool = False
    """Whether of both."""
    only_shrinks: bool = False
    """Whether smaller images stay as they are."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.channels == 1 and image.mode != "L":
            image = F.rgb_to_grayscale(image)
        size = self.size(image.width, image.height)
        return image if size == image.size else F.resize(image, list(size[::-1]), InterpolationMode(self.interpolation))

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what is made of an image of that size."""
        shorter, longer = sorted((width, height))
        if self.only_shrinks and shorter <= self.side_px:
            return width, height
        if self.squash:
            return self.side_px, self.side_px
        longer = int(self.side_px * longer / shorter)  # as torchvision has it
        return (self.side_px, longer) if width <= height else (longer, self.side_px)


def evaluation_resize(spec: ImageSpec) -> ResizeTransform:
    return ResizeTransform(spec.channels, spec.resize_px, spec.interpolation, spec.squash)


def training_resize(spec: ImageSpec) -> ResizeTransform:
    """Of images from which random crops are taken."""
    return ResizeTransform(spec.channels, ROOM * spec.resize_px, spec.interpolation, only_shrinks=True)


def evaluation_transform(spec: ImageSpec) -> Transform:
    """RGB image, or one in the evaluation's form -> uint8 (C, size, size): resized, the centre cut out."""
    return v2.Compose([evaluation_resize(spec), v2.CenterCrop(spec.size_px), v2.PILToTensor()])


def training_transform(spec: ImageSpec, augment: str, flip_probability: float, shrink: bool = False) -> Transform:
    """RGB image -> uint8 (C, size, size).

    none: as in evaluation. light: a random part of at least a third of the image, flipped. strong: also
    TrivialAugment (Müller & Hutter 2021) and random erasing (Zhong et al. 2020). `shrink`: of the image in the
    training's form.
    """
    if augment == "none":
        return evaluation_transform(spec)
    strong = augment == "strong"
    return v2.Compose(
        [
            *([training_resize(spec)] if shrink else _grey(spec)),
            v2.RandomResizedCrop(spec.size_px, scale=(0.35, 1.0), interpolation=InterpolationMode(spec.interpolation)),
            v2.RandomHorizontalFlip(flip_probability),
            *([v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)] if strong else []),
            v2.PILToTensor(),
            *([v2.RandomErasing(p=0.25)] if strong else []),
        ]
    )


def normalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 (..., C, H, W) -> float32, as the backbone's weights expect it."""
    return F.normalize(F.to_dtype(images, torch.float32, scale=True), list(spec.mean), list(spec.std), inplace=True)


def _grey(spec: ImageSpec) -> list[v2.Transform]:
    return [v2.Grayscale(1)] if spec.channels == 1 else []
