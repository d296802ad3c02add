"""Transforms from PIL images to tensors, on torchvision v2.

Pillow resizes, so that results do not depend on the CPU. C: channels, H and W: height and width in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F  # noqa: N812  # its usual name

from thaw.types import ImageSpec

CROP_ROOM = 2
"""Largest shorter side of images that are cached for random crops, as a multiple of the one in evaluation."""

Transform = Callable[[Image.Image], Tensor]
"""Function from an image to uint8 pixels (C, H, W)."""


@dataclass(frozen=True)
class ResizeTransform:
    """The deterministic first steps of a transform: greyscale and resize. Applying them twice changes nothing."""

    channels: int
    """1: grey, 3: RGB."""
    side_px: int
    """Length of the shorter side of the result (of both sides with `squash`), pixels."""
    interpolation: str
    """nearest, bilinear or bicubic."""
    squash: bool = False
    """Whether both sides are resized to `side_px`, whatever the aspect ratio."""
    only_shrinks: bool = False
    """Whether images with a shorter side below `side_px` keep their size."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image in grey if the network takes grey, resized."""
        if self.channels == 1 and image.mode != "L":
            image = F.rgb_to_grayscale(image)
        size = self.size(image.width, image.height)
        return image if size == image.size else F.resize(image, list(size[::-1]), InterpolationMode(self.interpolation))

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the result for an image of this size, pixels."""
        shorter, longer = sorted((width, height))
        if self.only_shrinks and shorter <= self.side_px:
            return width, height
        if self.squash:
            return self.side_px, self.side_px
        longer = int(self.side_px * longer / shorter)  # rounded down, as torchvision does
        return (self.side_px, longer) if width <= height else (longer, self.side_px)


def evaluation_resize(spec: ImageSpec) -> ResizeTransform:
    """Return the first steps of `evaluation_transform`."""
    return ResizeTransform(spec.channels, spec.resize_px, spec.interpolation, spec.squash)


def training_resize(spec: ImageSpec) -> ResizeTransform:
    """Return the first steps for images that random crops are taken from: large ones are shrunk."""
    return ResizeTransform(spec.channels, CROP_ROOM * spec.resize_px, spec.interpolation, only_shrinks=True)


def evaluation_transform(spec: ImageSpec) -> Transform:
    """Return the transform of evaluation: resize and crop the centre; RGB image -> uint8 (C, size_px, size_px).

    It also takes the results of `evaluation_resize`, and gives the same tensors.
    """
    return v2.Compose([evaluation_resize(spec), v2.CenterCrop(spec.size_px), v2.PILToTensor()])


def training_transform(spec: ImageSpec, augment: str, flip_probability: float, shrink: bool = False) -> Transform:
    """Return the transform of training, RGB image -> uint8 (C, size_px, size_px).

    Args:
        spec: What the network expects of its images.
        augment: "none" is the transform of evaluation; "light" crops a random part of at least 35 % of the area and
            flips it at random; "strong" adds TrivialAugment (Müller & Hutter 2021) and random erasing (Zhong et al.
            2020).
        flip_probability: Probability of a flip from left to right.
        shrink: Whether `training_resize` comes first; its results then give the same tensors as the images.
    """
    if augment == "none":
        return evaluation_transform(spec)
    grey = [v2.Grayscale(1)] if spec.channels == 1 else []
    strong = augment == "strong"
    return v2.Compose(
        [
            *([training_resize(spec)] if shrink else grey),
            v2.RandomResizedCrop(spec.size_px, scale=(0.35, 1.0), interpolation=InterpolationMode(spec.interpolation)),
            v2.RandomHorizontalFlip(flip_probability),
            *([v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)] if strong else []),
            v2.PILToTensor(),
            *([v2.RandomErasing(p=0.25)] if strong else []),
        ]
    )


def normalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """Return uint8 images (..., C, H, W) as float32 with the mean and standard deviation that the network expects."""
    return F.normalize(F.to_dtype(images, torch.float32, scale=True), list(spec.mean), list(spec.std), inplace=True)
