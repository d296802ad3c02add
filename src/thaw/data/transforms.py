"""From decoded images to what a network takes, on torchvision v2."""

import torch
from torchvision.transforms import InterpolationMode, v2

from thaw.backbones.backbone import InputSpec


def evaluation_transform(spec: InputSpec) -> v2.Transform:
    """uint8 images (..., 1 or 3, H, W) -> float (..., C, size, size): resized, centre-cropped, normalised."""
    resize_px = round(spec.size_px / spec.crop_ratio)
    return v2.Compose(
        [
            v2.Grayscale(1) if spec.channels == 1 else v2.RGB(),
            v2.Resize(resize_px, InterpolationMode(spec.interpolation), antialias=True),
            v2.CenterCrop(spec.size_px),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(spec.mean, spec.std),
        ]
    )
