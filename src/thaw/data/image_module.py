"""Images read one at a time, and the dataset that makes batches of them."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from thaw.caching.decoded import DecodedImages, ImageDecoder, Read
from thaw.caching.store import RunProcesses, Store
from thaw.data.module import DataModule
from thaw.data.transforms import (
    AUGMENTATIONS,
    Transform,
    evaluation_resize,
    evaluation_transform,
    normalise,
    training_resize,
    training_transform,
)
from thaw.errors import UserError
from thaw.seeds import seed_of
from thaw.storage import digest
from thaw.types import Batch, BatchRequest, Indices

DECODED = {"off": False, "false": False, "on": True, "true": True}


class ImageDataModule(DataModule):
    """Images that `read` gives by number, RGB; the transforms come from the backbone's input spec.

    `read` goes to the loader processes. `labels`: the class of each image, by name. `splits`: train, val or test where
    the data says so, else None. `decoded`: off or on, whether images are decoded once and kept (see decoded.py).
    """

    def __init__(
        self,
        read: Read,
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
        if (keep := DECODED.get(str(decoded).lower())) is None:
            raise UserError(f"data.decoded is off or on, not '{decoded}'")
        class_names = sorted(set(labels))
        number = {name: i for i, name in enumerate(class_names)}
        targets = np.array([number[label] for label in labels], dtype=np.int64)
        workers = default_workers() if num_workers is None else num_workers
        super().__init__(targets, class_names, splits, num_workers=workers, **choices)
        self.read, self.augment, self.flip_probability = read, augment, flip_probability
        self.keeps_decoded = keep
        self._decoded: dict[str, DecodedImages | None] = {}

    def image(self, index: int) -> Image.Image:
        return self.read(index)

    @property
    def augments(self) -> bool:
        return self.augment != "none"

    def recipe(self, view: int | None) -> dict[str, Any]:
        if view is None:
            return super().recipe(view)
        chosen = {"augment": self.augment, "flip_probability": self.flip_probability, "seed": self.seed, "view": view}
        return {**super().recipe(view), **chosen, "decoded": self.keeps_decoded}

    def contents(self, samples: Indices) -> list[str]:
        """Of the whole images: views show what evaluation does not."""
        images = map(self.read, samples.tolist())
        return [digest(str(image.size), image.tobytes()) for image in images]

    def use_store(self, store: Store | None) -> None:
        if self.keeps_decoded and store is None:
            raise UserError("data.decoded=on keeps images, and caching=off keeps nothing: type caching=on")
        super().use_store(store)

    def dataset(self) -> Dataset[Batch]:
        return self._dataset(None)

    def dataset_of(self, split: str) -> Dataset[Batch]:
        if not self.keeps_decoded or self.store is None:
            return self.dataset()
        if split not in self._decoded:
            self._decoded[split] = self._kept(split, self.store)
        return self._dataset(self._decoded[split])

    def _dataset(self, decoded: DecodedImages | None) -> Dataset[Batch]:
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        evaluation = evaluation_transform(self.input_spec)
        # Views are the same whether the image is kept or not.
        training = training_transform(self.input_spec, self.augment, self.flip_probability, shrink=self.keeps_decoded)
        return ImageDataset(self.read, decoded, self.targets, evaluation, training, self.seed)

    def _kept(self, split: str, store: Store) -> DecodedImages | None:
        form = training_resize if split == "train" and self.augments else evaluation_resize
        samples = np.sort(self.parts[split])
        what = f"{len(samples):,} {split} images"
        run = "" if self.trainer is None else str(self.trainer.default_root_dir)
        contents = self.contents(samples)
        decoder = ImageDecoder(self.read, form(self.input_spec), samples, contents, what, run, default_workers())
        taken = sum(kept.num_bytes for kept in self._decoded.values() if kept is not None)
        return decoder.decode(store, RunProcesses.of(self.trainer), taken)

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
        read: Read,
        decoded: DecodedImages | None,
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

    def __getitem__(self, key: BatchRequest) -> Batch:
        index = torch.tensor(key.indices)
        images = [self._transformed(i, key.view) for i in key.indices]
        return Batch(torch.stack(images), self.targets[index], index, view=key.view, total=key.total)

    def _transformed(self, index: int, view: int | None) -> Tensor:
        image = self.decoded(index, view is None) if self.decoded is not None else self.read(index)
        if view is None:
            return self.evaluation(image)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's global generator
            torch.default_generator.manual_seed(seed_of(self.seed, view, index))
            return self.training(image)


def default_workers() -> int:
    """One loader process for each core that this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
