"""Image networks as others use them."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.export import Dim

from thaw.data import image_file
from thaw.data.image_file import load_image
from thaw.data.transforms import evaluation_transform, normalise
from thaw.exporting import run_onnx_images
from thaw.exporting.deployed import InferenceModel
from thaw.types import ImageSpec

UPRIGHT_WHEN_TURNED = 6
"""EXIF orientation: the camera was held on its side."""


class ImageInferenceModel(InferenceModel):
    """uint8 images (B, C, H, W), resized and cut, to class probabilities (B, C): normalisation is inside."""

    parameters_take = "normalised images, float (B, C, H, W), see preprocessing below"
    whole_takes = "uint8 images (B, C, H, W), resized and cut"

    def forward(self, images: Tensor) -> Tensor:
        return self.task.probabilities(self.network(normalise(images, self.spec)))

    @property
    def spec(self) -> ImageSpec:
        assert isinstance(self.backbone.input_spec, ImageSpec)
        return self.backbone.input_spec

    def example(self) -> dict[str, Tensor]:
        size = self.spec.size_px
        return {"images": torch.zeros(2, self.spec.channels, size, size, dtype=torch.uint8)}

    def dynamic_shapes(self) -> dict[str, Any]:
        return {"images": {0: Dim("batch", min=1)}}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "1_load": "8 bits per channel; EXIF orientation applied; first frame; transparent becomes white",
            "2_mode": "RGB" if self.spec.channels == 3 else "L",
            "3_resize_sides": "both" if self.spec.squash else "shorter",
            "3_resize_px": self.spec.resize_px,
            "3_resize_interpolation": self.spec.interpolation,
            "3_resize_library": "Pillow",
            "4_center_crop_px": self.spec.size_px,
            "5_scale": 1 / 255,
            "6_mean": self.spec.mean,
            "6_std": self.spec.std,
        }

    def samples(self, data: Any, count: int, folder: Path) -> list[str]:
        """Files: images as they are, not square, grey, turned by EXIF."""
        indices = data.splits.test if len(data.splits.test) else data.splits.val
        files = []
        for number, index in enumerate(islice(cycle(indices.tolist()), count)):
            image, file, exif = data.image(index), folder / f"{number:04}.png", Image.Exif()
            width, height = image.size
            if number % 4 == 1:
                image = image.crop((0, 0, width, max(1, height * 2 // 3)))
            elif number % 4 == 2:
                image = image.convert("L")
            elif number % 4 == 3:
                exif[0x0112] = UPRIGHT_WHEN_TURNED
            image.save(file, exif=exif)
            files.append(str(file))
        return files

    def inputs(self, samples: Sequence[str]) -> tuple[Tensor, ...]:
        transform = evaluation_transform(self.spec)
        return (torch.stack([transform(load_image(file)) for file in samples]),)

    def library_inputs(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return normalise(inputs[0], self.spec)

    def asked(self, samples: Sequence[str]) -> tuple[list[str], str | None]:
        return list(samples), None

    def runner(self) -> dict[str, Path]:
        """Needs only onnxruntime, numpy and Pillow."""
        return {"run_onnx.py": Path(run_onnx_images.__file__), "image_file.py": Path(image_file.__file__)}
