"""From images to what a network takes, on torchvision v2. Pillow resizes, so that results do not depend on the CPU."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F  # noqa: N812  # its usual name

from thaw.backbones.backbone import ImageSpec

AUGMENTATIONS = ("none", "light", "strong")

Transform = Callable[[Image.Image], Tensor]


def evaluation_transform(spec: ImageSpec) -> Transform:
    """RGB image -> uint8 (C, size, size): the shorter side (or both) resized, the centre cut out."""
    interpolation = InterpolationMode(spec.interpolation)
    size = [spec.resize_px, spec.resize_px] if spec.squash else spec.resize_px
    return v2.Compose(
        [
            *_grey(spec),
            v2.Resize(size, interpolation),
            v2.CenterCrop(spec.size_px),
            v2.PILToTensor(),
        ]
    )


def training_transform(spec: ImageSpec, augment: str, flip_probability: float) -> Transform:
    """RGB image -> uint8 (C, size, size).

    none: as in evaluation. light: a random part of at least a third of the image, flipped. strong: also
    TrivialAugment (Müller & Hutter 2021) and random erasing (Zhong et al. 2020).
    """
    if augment == "none":
        return evaluation_transform(spec)
    strong = augment == "strong"
    return v2.Compose(
        [
            *_grey(spec),
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
