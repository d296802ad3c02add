"""Images as input of exported networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.export import Dim

from thaw.data import image_file
from thaw.data.image_file import load_image
from thaw.data.transforms import evaluation_transform, normalise
from thaw.exporting.inputs import InputKind
from thaw.types import ImageSpec

ROTATED_90 = 6  # EXIF orientation of a photograph taken with the camera on its side


class Images(InputKind):
    """Image files; the model takes them as uint8 (B, C, H, W), resized and cropped. Normalisation is in the model."""

    things = "images"
    user_inputs = "uint8 images (B, C, H, W), resized and cropped"
    network_inputs = "normalised images, float (B, C, H, W), see preprocessing below"
    example_sample = "image.jpg"
    runner_files = (Path(image_file.__file__),)

    def __init__(self, spec: ImageSpec):
        self.spec = spec
        self.preprocessing = {
            "1_load": "8 bits per channel; EXIF orientation applied; first frame; transparent becomes white",
            "1_max_value": spec.max_value,
            "2_mode": "RGB" if spec.channels == 3 else "L",
            "3_resize_sides": "both" if spec.squash else "shorter",
            "3_resize_px": spec.resize_px,
            "3_resize_interpolation": spec.interpolation,
            "3_resize_library": "Pillow",
            "4_center_crop_px": spec.size_px,
            "5_scale": 1 / 255,
            "6_mean": list(spec.mean),
            "6_std": list(spec.std),
        }

    def example(self) -> dict[str, Tensor]:
        """Two black images."""
        shape = (2, self.spec.channels, self.spec.size_px, self.spec.size_px)
        return {"images": torch.zeros(shape, dtype=torch.uint8)}

    def varying_dimensions(self) -> dict[int, Dim]:
        """The batch size."""
        return {0: Dim("batch", min=1)}

    def to_network(self, *inputs: Tensor) -> Tensor:
        """Normalise: uint8 (B, C, H, W) to float32."""
        return normalise(inputs[0], self.spec)

    def read(self, samples: Sequence[str]) -> tuple[Tensor, ...]:
        """Load image files and transform them as in evaluation."""
        transform = evaluation_transform(self.spec)
        return (torch.stack([transform(load_image(file, self.spec.max_value)) for file in samples]),)

    def sample(self, data: Any, index: int, variation: int, stem: Path) -> str:
        """Write a PNG file: the image as it is, not square, grey, or rotated by EXIF."""
        image, exif, file = data.image(index), Image.Exif(), stem.with_suffix(".png")
        if variation == 1:
            image = image.crop((0, 0, image.width, max(1, image.height * 2 // 3)))
        elif variation == 2:
            image = image.convert("L")
        elif variation == 3:
            exif[ExifTags.Base.Orientation] = ROTATED_90
        image.save(file, exif=exif)
        return str(file)
