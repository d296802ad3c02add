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

from thaw.data.batch import Batch
from thaw.data.sampler import Key
from thaw.data.source import Source
from thaw.data.transforms import AUGMENTATIONS, Transform, evaluation_transform, normalise, training_transform
from thaw.seeds import seed_of


class ImageSource(Source):
    """Images that `read` gives by number, RGB; the transforms come from the backbone's input spec.

    `read` goes to the loader processes. `labels`: the class of each image, by name. `splits`: train, val or test where
    the data says so, else None.
    """

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        labels: Sequence[str],
        splits: Sequence[str | None],
        *,
        augment: str,
        flip_probability: float,
        num_workers: int | None,
        **choices: Any,
    ):
        if augment not in AUGMENTATIONS:
            raise ValueError(f"data.augment is {', '.join(AUGMENTATIONS)}, not '{augment}'")
        if not 0 <= flip_probability <= 1:
            raise ValueError(f"data.flip_probability is from 0 to 1, not {flip_probability}")
        class_names = sorted(set(labels))
        number = {name: i for i, name in enumerate(class_names)}
        targets = np.array([number[label] for label in labels], dtype=np.int64)
        workers = default_workers() if num_workers is None else num_workers
        super().__init__(targets, class_names, splits, num_workers=workers, **choices)
        self.read, self.augment, self.flip_probability = read, augment, flip_probability

    def image(self, index: int) -> Image.Image:
        return self.read(index)

    @property
    def augments(self) -> bool:
        return self.augment != "none"

    def recipe(self, view: int | None) -> dict[str, Any]:
        if view is None:
            return super().recipe(view)
        chosen = {"augment": self.augment, "flip_probability": self.flip_probability, "seed": self.seed, "view": view}
        return {**super().recipe(view), **chosen}

    def dataset(self) -> Dataset[Batch]:
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        training = training_transform(self.input_spec, self.augment, self.flip_probability)
        return ImageDataset(self.read, self.targets, evaluation_transform(self.input_spec), training, self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The last step, on the device: until here images are uint8."""
        if batch.start:
            return batch
        assert self.input_spec is not None
        assert isinstance(batch.inputs, Tensor)
        inputs = normalise(batch.inputs, self.input_spec)
        # Lightning converts before this hook, where they are still integers.
        return batch._replace(inputs=self.trainer.precision_plugin.convert_input(inputs) if self.trainer else inputs)


class ImageDataset(Dataset[Batch]):
    """Batches of uint8 images (B, C, H, W), a pure function of the key; view None is the evaluation's."""

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        targets: NDArray[np.int64],
        evaluation: Transform,
        training: Transform,
        seed: int,
    ):
        self.read, self.targets, self.seed = read, torch.from_numpy(targets), seed
        self.evaluation, self.training = evaluation, training

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: Key) -> Batch:
        index = torch.tensor(key.indices)
        images = [self._transformed(i, key.view) for i in key.indices]
        return Batch(torch.stack(images), self.targets[index], index)

    def _transformed(self, index: int, view: int | None) -> Tensor:
        image = self.read(index)
        if view is None:
            return self.evaluation(image)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's global generator
            torch.default_generator.manual_seed(seed_of(self.seed, view, index))
            return self.training(image)


def default_workers() -> int:
    """One loader process for each core that this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
