"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels that come with the package."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.module import DataModule
from thaw.data.transforms import evaluation_transform, normalise
from thaw.storage import digest
from thaw.types import Batch, BatchRequest, Indices


class Digits(DataModule):
    """Data module of scikit-learn's digits: the test part of the UCI set (Alpaydin & Kaynak 1998).

    Args:
        choices: Arguments of `DataModule`.
    """

    def __init__(self, **choices: Any):
        digits = load_digits()
        super().__init__(digits.target.astype(np.int64), [str(name) for name in digits.target_names], **choices)
        self.images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8); ink is 0..16 in the source

    def image(self, index: int) -> Image.Image:
        """Return an image as RGB, 8 x 8 pixels."""
        return Image.fromarray(self.images[index]).convert("RGB")

    def contents(self, samples: Indices) -> list[str]:
        """Return a digest of each image."""
        return [digest(image.tobytes()) for image in self.images[samples]]

    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """Return all images as the network takes them, kept in memory."""
        return ImagesInMemory(self._inputs, torch.from_numpy(self.targets))

    @cached_property
    def _inputs(self) -> Tensor:
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        transform = evaluation_transform(self.input_spec)
        images = torch.stack([transform(self.image(index)) for index in range(len(self.images))])
        return normalise(images, self.input_spec)


class ImagesInMemory(Dataset[Batch]):
    """Dataset of images that are kept in memory as the network takes them, (N, C, H, W)."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: BatchRequest) -> Batch:
        index = torch.tensor(key.indices)
        return Batch(self.inputs[index], self.targets[index], index, view=key.view, total=key.total)
