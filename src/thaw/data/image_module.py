"""Images read one at a time, and the dataset that makes batches of them."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.module import DataModule
from thaw.data.transforms import AUGMENTATIONS, Transform, evaluation_transform, normalise, training_transform
from thaw.errors import UserError
from thaw.seeds import seed_of
from thaw.storage import digest
from thaw.types import Batch, BatchRequest, Indices

DECODED = {"off": False, "false": False, "on": True, "true": True}
"""Meaning of the values of data.decoded, in lower case."""

ReadImage = Callable[[int], Image.Image]
"""Function from a sample index to the image, RGB."""
ReadDecoded = Callable[[int, bool], Image.Image]
"""Function from a sample index, and whether it is for evaluation, to the image or a smaller copy that will do."""


class ImageDataModule(DataModule):
    """Images with one label each. The transforms follow from the network's input spec.

    Args:
        read: reads an image by its sample index; it is sent to loader processes.
        labels: class name of each image.
        splits: train, val or test for each image, None for those that are split here.
        augment: none, light or strong.
        flip_probability: probability of a horizontal flip, where images are augmented.
        decoded: "on" if images are decoded once and cached; see thaw.caching.decoded.
        num_workers: loader processes; None for one per core, at most 8.
        **choices: see `DataModule`.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        read: ReadImage,
        labels: Sequence[str],
        splits: Sequence[str | None],
        *,
        augment: str,
        flip_probability: float,
        decoded: str | bool,
        num_workers: int | None,
        **choices: Any,
    ):
        if augment not in AUGMENTATIONS:
            raise UserError(f"data.augment is {', '.join(AUGMENTATIONS)}, not '{augment}'")
        if not 0 <= flip_probability <= 1:
            raise UserError(f"data.flip_probability is from 0 to 1, not {flip_probability}")
        if (keeps_decoded := DECODED.get(str(decoded).lower())) is None:
            raise UserError(f"data.decoded is off or on, not '{decoded}'")
        class_names, targets = number_labels(labels)
        workers = default_workers() if num_workers is None else num_workers
        super().__init__(targets, class_names, splits, num_workers=workers, **choices)
        self.read, self.augment, self.flip_probability = read, augment, flip_probability
        self.keeps_decoded = keeps_decoded
        self.decoded: dict[str, ReadDecoded | None] = {}
        """By split, readers of decoded copies; None if they are not kept."""

    def image(self, index: int) -> Image.Image:
        """The image of a sample, RGB."""
        return self.read(index)

    @property
    def augments(self) -> bool:
        """Whether training images are augmented."""
        return self.augment != "none"

    def recipe(self, view: int | None) -> dict[str, Any]:
        """Plain values that decide what the network sees of an image in this view; None for evaluation."""
        if view is None:
            return super().recipe(view)
        augmentation = {"augment": self.augment, "flip_probability": self.flip_probability}
        return {**super().recipe(view), **augmentation, "decoded": self.keeps_decoded}

    def contents(self, samples: Indices) -> list[str]:
        """Digest of each image as a whole: augmented views show parts that evaluation does not."""
        images = map(self.read, samples.tolist())
        return [digest(str(image.size), image.tobytes()) for image in images]

    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """All images as uint8; see `ImageDataset`."""
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        evaluation = evaluation_transform(self.input_spec)
        # The same views whether decoded copies could be kept or not.
        training = training_transform(self.input_spec, self.augment, self.flip_probability, shrink=self.keeps_decoded)
        decoded = self.decoded.get(split or "")
        return ImageDataset(self.read, decoded, self.targets, evaluation, training, self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device; until here images are uint8."""
        assert self.input_spec is not None
        assert isinstance(batch.inputs, Tensor)
        inputs = normalise(batch.inputs, self.input_spec)
        # Lightning converts the precision before this hook, when images are still integers.
        return batch._replace(inputs=self.trainer.precision_plugin.convert_input(inputs) if self.trainer else inputs)


class ImageDataset(Dataset[Batch]):
    """Batches of uint8 images (B, C, H, W), a pure function of the request."""

    def __init__(
        self,
        read: ReadImage,
        decoded: ReadDecoded | None,
        targets: NDArray[np.int64],
        evaluation: Transform,
        training: Transform,
        seed: int,
    ):
        self.read, self.decoded = read, decoded
        self.targets, self.seed = torch.from_numpy(targets), seed
        self.evaluation, self.training = evaluation, training

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, request: BatchRequest) -> Batch:
        index = torch.tensor(request.indices)
        images = [self._load_transformed(i, request.view) for i in request.indices]
        return Batch(torch.stack(images), self.targets[index], index, view=request.view, total=request.total)

    def _load_transformed(self, index: int, view: int | None) -> Tensor:
        image = self.decoded(index, view is None) if self.decoded is not None else self.read(index)
        if view is None:
            return self.evaluation(image)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's global generator
            torch.default_generator.manual_seed(seed_of(self.seed, view, index))
            return self.training(image)


def number_labels(labels: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Class names in alphabetical order, and the class index of each label, (N,)."""
    class_names, targets = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return class_names.tolist(), targets.astype(np.int64)


def default_workers() -> int:
    """Number of loader processes: one for each core that this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
