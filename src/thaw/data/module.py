"""The data module: the samples of a source as batches."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from thaw.data.labelled import LabelledData
from thaw.data.loader import BatchLoader, EpochLoader, MappedDataset, workers_with_room
from thaw.data.sampler import EpochBatches, process_batch_size, require_shares
from thaw.data.source import Source, content_digests
from thaw.errors import UserError
from thaw.types import Batch, BatchRequest, ImageSpec, Indices, InputSpec


def no_stages(epoch: int) -> int:
    """0 in every epoch."""
    return 0


class DataModule(LabelledData):
    """The samples of a source as batches. Abstract: `ImageDataModule` and `TextDataModule` say how.

    Call `split` (or `split_as`, `test_all`) and then `use_input_spec` before asking for loaders.

    Args:
        source: the samples.
        seed: seed of the splits, of the order in each epoch and of augmentation.
        batch_size: samples per step and process.
        num_workers: loader processes; 0 loads in the main process.
        shuffle: whether each epoch has an order of its own.
        balance: what is done about classes of unequal size: none, loss or sampler.
        global_batch_size: samples per step over all processes, instead of `batch_size`.
        **splitting: see `LabelledData`.

    Raises:
        UserError: the source is not as `Source` says.
    """

    takes: type[InputSpec] = ImageSpec
    """Type of the input spec of networks that take these samples."""

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        shuffle: bool,
        balance: str,
        global_batch_size: int | None = None,
        **splitting: Any,
    ):
        super().__init__(source, seed=seed, **splitting)
        self.batch_size, self.num_workers, self.shuffle = batch_size, num_workers, shuffle
        self.balance, self.global_batch_size = balance, global_batch_size
        self.input_spec: Any = None
        self.frozen_stages: Callable[[int], int] = no_stages
        """From an epoch to its number of leading stages that are frozen."""

    # What a kind of data overrides.

    @abstractmethod
    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """All samples: `dataset[request]` is the batch of a `BatchRequest`, a pure function of it.

        Its `targets`, a tensor with the target of every sample, are what batches of cached activations have.

        Args:
            split: the split whose batches will be requested, where that makes loading faster; None for any.
        """

    def recipe(self, view: int | None) -> dict[str, Any]:
        """Plain values that decide what the network sees of a sample in this view; None for evaluation."""
        return asdict(self.input_spec) | ({} if view is None else {"seed": self.seed, "view": view})

    def width(self, lengths: NDArray[np.int64]) -> int:
        """Length in tokens that texts of these lengths are padded to in one batch."""
        return int(lengths.max())

    @property
    def augments(self) -> bool:
        """Whether training samples have other versions than in evaluation."""
        return False

    def view(self, epoch: int) -> int | None:
        """Number of the augmented version that training shows in an epoch; None: as in evaluation."""
        return None

    def shown(self, epoch: int) -> str:
        """What training shows in an epoch and in those that are like it, for people."""
        return self.takes.things

    @property
    def training_texts(self) -> list[str]:
        """Texts that a vocabulary can be learnt from; empty if samples are not texts."""
        return []

    pairs: bool = False
    """Whether each sample is a pair of texts."""

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Length of each sample, (N,), if samples of similar length make better batches."""
        return None

    # Batches.

    def contents(self, samples: Indices) -> list[str]:
        """Digest of each sample's content, for keys of the cache."""
        return content_digests(self.source, self.facts, samples)

    @property
    def task_facts(self) -> dict[str, Any]:
        """What the task is told of the training samples, such as the weights of the classes: keyword arguments."""
        return self.labels.task_facts(self.train_indices, self.balance == "loss")

    def use_input_spec(self, spec: InputSpec) -> None:
        """Set what the network expects of its inputs, once. Raises UserError if it takes another kind of data."""
        if not isinstance(spec, self.takes):
            data = {"images": "data=image_folder data.root=...", "texts": "data=text_table data.table=..."}
            backbones = {
                "images": "backbone=torchvision",
                "texts": "backbone=huggingface backbone.name=... (without a download: backbone=gru freezing=full)",
            }
            raise UserError(
                f"the backbone reads {spec.things}, and the data are {self.takes.things}: type {data[spec.things]}, or "
                f"{backbones[self.takes.things]}"
            )
        self.input_spec = spec

    def require_shares(self, world_size: int) -> None:
        """Raise UserError if batches or splits cannot be shared out among so many processes."""
        process_batch_size(self.batch_size, self.global_batch_size, world_size)
        require_shares(self.parts, world_size)

    def train_dataloader(self) -> Iterable[Batch]:
        """Batches of raw training samples."""
        return self.loader("train")

    def val_dataloader(self) -> Iterable[Batch]:
        """Batches of raw validation samples."""
        return self.loader("val")

    def test_dataloader(self) -> Iterable[Batch]:
        """Batches of raw test samples."""
        return self.loader("test")

    def predict_dataloader(self) -> Iterable[Batch]:
        """Batches of validation samples, whose outputs are computed again with the best weights."""
        return self.val_dataloader()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device, but leave `index` in host memory, where it is used."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx)._replace(index=batch.index)

    def loader(
        self,
        split: str,
        batches: Callable[[EpochLoader], Iterator[Batch]] = lambda loader: iter(loader.raw),
    ) -> EpochLoader:
        """The loader of a split.

        Args:
            split: train, val or test.
            batches: function from the loader to the batches of an epoch; by default, those of raw samples.
        """
        training = split == "train"
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochBatches(
            self.parts[split],
            process_batch_size(self.batch_size, self.global_batch_size, world_size),
            self.seed,
            training and self.shuffle,
            rank,
            world_size,
            view=self.view if training else None,
            balance_targets=self.strata if training and self.balance == "sampler" else None,
            lengths=self.lengths if self.shuffle or not training else None,
        )
        make_raw = partial(self.raw_loader, split, sampler, persistent=True)
        return EpochLoader(sampler, make_raw, batches, self._batches_done if training else lambda: 0)

    def raw_loader(
        self,
        split: str,
        requests: Iterable[BatchRequest],
        persistent: bool = False,
        then: Callable[[Batch], Batch] | None = None,
    ) -> DataLoader[Any]:
        """Batches of raw samples, one for each request.

        Args:
            split: the split that the samples belong to.
            requests: the samples of each batch.
            persistent: whether loader processes wait for the next epoch.
            then: function that loader processes apply to each batch.
        """
        dataset = self.dataset(split)
        workers = self._workers(dataset) if self.num_workers else 0
        mapped = dataset if then is None else MappedDataset(dataset, then)
        return BatchLoader(mapped, requests, workers, persistent, pin_memory=torch.cuda.is_available())

    def _workers(self, dataset: Dataset[Batch]) -> int:
        """Loader processes: `num_workers`, or fewer if shared memory has no room for their batches."""
        longest = 0 if self.lengths is None else int(self.lengths.argmax())
        inputs = dataset[BatchRequest([longest], None)].inputs
        tensors = inputs.values() if isinstance(inputs, dict) else [inputs]
        sample_bytes = sum(tensor.nbytes for tensor in tensors)
        here, in_run = (self.trainer.num_devices, self.trainer.world_size) if self.trainer else (1, 1)
        batch_size = process_batch_size(self.batch_size, self.global_batch_size, in_run)
        return workers_with_room(self.num_workers, batch_size * sample_bytes, here)

    def _batches_done(self) -> int:
        """Number of batches of this training epoch that were done before the run was resumed inside it."""
        return 0 if self.trainer is None else self.trainer.fit_loop.batch_idx + 1
