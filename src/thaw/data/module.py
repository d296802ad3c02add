"""The data module: labelled samples, cut into train, val and test, as batches."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from thaw.data.loader import EpochLoader, MappedDataset, identity, init_worker
from thaw.data.report import counts_table, listed
from thaw.data.sampler import EpochBatches, process_batch_size, require_shares
from thaw.data.samples import UNUSED, Sample, SampleRecord
from thaw.data.splits import few_per_class
from thaw.data.splitting import GivenSplits, make_splits, splits_as_recorded, splits_of_new_data
from thaw.errors import UserError
from thaw.storage import digest_of_tensors
from thaw.types import Batch, BatchRequest, ImageSpec, Indices, InputSpec

BALANCES = ("none", "loss", "sampler")


class DataModule(LightningDataModule):
    """Labelled samples and their splits. A kind of data overrides `dataset`; all else is here.

    `split` (or `split_as`, `test_all`) and then `use_input_spec` come before the loaders.

    Args:
        targets: class index of every sample, (N,).
        class_names: in the order of the class indices.
        given_splits: train, val or test for each sample, None for those that are split here.
        seed: of the splits, of the order in each epoch and of augmentation.
        batch_size: samples per step and process.
        num_workers: loader processes; 0 loads in the main one.
        shuffle: whether each epoch has an order of its own.
        balance: what is done about classes of unequal size: none, loss or sampler.
        val_fraction: share of all samples that validates.
        test_fraction: share of all samples that tests.
        labels_per_class: training samples of each class; None for all.
        fold: number of the fold that tests; None for no cross-validation.
        folds: number of folds.
        global_batch_size: samples per step over all processes, instead of `batch_size`.

    Raises:
        UserError: a setting is out of range.
    """

    takes: type[InputSpec] = ImageSpec
    """Kind of input spec of the networks that suit the samples."""

    def __init__(
        self,
        targets: NDArray[np.int64],
        class_names: list[str],
        given_splits: GivenSplits = None,
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        shuffle: bool,
        balance: str,
        val_fraction: float,
        test_fraction: float,
        labels_per_class: int | None,
        fold: int | None,
        folds: int,
        global_batch_size: int | None = None,
    ):
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size={batch_size}, but a batch has at least 1 sample")
        if not (global_batch_size is None or (isinstance(global_batch_size, int) and global_batch_size > 0)):
            raise UserError(f"data.global_batch_size is null or a whole number from 1 on, not {global_batch_size}")
        if balance not in BALANCES:
            raise UserError(f"data.balance is {', '.join(BALANCES)}, not '{balance}'")
        self.targets, self.class_names = targets, class_names
        self.given_splits = given_splits if given_splits is not None and any(given_splits) else None
        self.seed, self.batch_size, self.num_workers, self.shuffle = seed, batch_size, num_workers, shuffle
        self.balance, self.global_batch_size, self.labels_per_class = balance, global_batch_size, labels_per_class
        self.split_settings: dict[str, Any] = {
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "fold": fold,
            "folds": folds,
            "seed": seed,
        }
        self.input_spec: Any = None
        self.left_out: list[str] = []
        """Samples that cannot be used, for the report."""
        self.notes: list[str] = []
        """What else was found and is not used, for the report."""

    # What a kind of data overrides.

    @abstractmethod
    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """All samples: `dataset[request]` is the batch of a `BatchRequest`, a pure function of it.

        Args:
            split: the split that batches are asked of, where that makes loading faster; None for any.
        """

    def identity(self, index: int) -> Sample:
        """What a sample is known by in later runs."""
        return Sample(str(index))

    def contents(self, samples: Indices) -> list[str]:
        """Digest of each sample's content. By default of what the network is given in evaluation."""
        dataset = self.dataset()
        return [digest_of_tensors(dataset[BatchRequest([index], None)].inputs) for index in samples.tolist()]

    def recipe(self, view: int | None) -> dict[str, Any]:
        """Plain values that decide what the network is given of a sample in this view; None for evaluation."""
        return asdict(self.input_spec) | ({} if view is None else {"seed": self.seed, "view": view})

    def width(self, lengths: NDArray[np.int64]) -> int:
        """Length in tokens that texts of these lengths are padded to in one batch."""
        return int(lengths.max())

    def warnings(self) -> list[str]:
        """What is odd about the data, one text each; the first line says what it is."""
        return []

    @property
    def augments(self) -> bool:
        """Whether training samples look different in each epoch."""
        return False

    @property
    def training_texts(self) -> list[str]:
        """Texts that a vocabulary can be learnt from; empty if samples are not texts."""
        return []

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Length of each sample, (N,), if samples of similar length make better batches."""
        return None

    # Splits.

    def split(self) -> None:
        """Split as the data and the settings say. Raises UserError if the settings do not fit the samples."""
        self.splits = make_splits(self.targets, self.class_names, self.given_splits, **self.split_settings)
        self.train_indices = self.splits.train
        if self.labels_per_class is not None:
            self.train_indices = few_per_class(self.train_indices, self.targets, self.labels_per_class, self.seed)

    def split_as(self, records: Sequence[SampleRecord]) -> None:
        """Split as a run did, whatever was added since. Raises UserError if samples of the run are gone."""
        labels = [self.class_names[target] for target in self.targets]
        self.splits = splits_as_recorded(self.identities(), labels, records)
        self.train_indices = self.splits.train

    def test_all(self, but: Collection[str]) -> None:
        """Split for measuring a finished run on other data, without samples whose content is in `but`."""
        self.splits = splits_of_new_data(self.identities(), self.given_splits, but)
        self.train_indices = self.splits.train

    def identities(self) -> list[Sample]:
        """What each sample is known by in later runs."""
        return [self.identity(index) for index in range(len(self.targets))]

    def records(self) -> list[SampleRecord]:
        """Every sample with its label and split, for later commands."""
        split = {index: name for name, indices in self.parts.items() for index in indices.tolist()}
        return [
            SampleRecord(self.identity(index), self.class_names[target], split.get(index, UNUSED))
            for index, target in enumerate(self.targets)
        ]

    @property
    def parts(self) -> dict[str, Indices]:
        """Sample indices of each split."""
        return {"train": self.train_indices, "val": self.splits.val, "test": self.splits.test}

    # Classes.

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_weights(self) -> list[float] | None:
        """Weights of the loss, n / (C * count) for each class; None unless `balance` is loss."""
        counts = self.counts(self.train_indices)
        return [sum(counts) / (self.num_classes * count) for count in counts] if self.balance == "loss" else None

    def counts(self, indices: Indices) -> list[int]:
        """Number of these samples in each class."""
        return np.bincount(self.targets[indices], minlength=self.num_classes).tolist()

    def align(self, class_names: Sequence[str]) -> None:
        """Number the classes as a trained network does. Raises UserError for a class that it does not know."""
        if unknown := [name for name in self.class_names if name not in class_names]:
            raise UserError(
                f"the network was trained on the classes {', '.join(class_names)}; this data also has "
                f"{', '.join(unknown)}: leave it out, or start a new run with init_from=..."
            )
        number = np.array([class_names.index(name) for name in self.class_names])
        self.targets, self.class_names = number[self.targets], list(class_names)

    # For people.

    def summary(self) -> str:
        """The report in a line or two, for the start of a run."""
        sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in self.parts.items())
        lines = [f"data: {sizes} samples of {self.num_classes} classes"]
        if self.left_out:
            lines.append(f"{len(self.left_out)} samples were left out, as data.on_bad says: data.txt names them")
        return "\n".join([*lines, *(f"warning: {warning.splitlines()[0]}" for warning in self.warnings())])

    def report(self) -> str:
        """Samples of each class and split, what was left out, and what is odd."""
        counts = {name: self.counts(part) for name, part in self.parts.items()}
        lines = [counts_table(self.class_names, counts).rstrip()]
        if self.left_out:
            lines.append(listed("left out: they cannot be used", self.left_out, most=len(self.left_out)))
        lines += [f"warning: {warning}" for warning in self.warnings()]
        if self.notes:
            lines.append(listed("not used", self.notes))
        return "\n".join(lines)

    # Batches.

    def use_input_spec(self, spec: InputSpec) -> None:
        """Set what the network expects of its inputs, once. Raises UserError if it takes another kind of data."""
        if not isinstance(spec, self.takes):
            raise UserError(f"this backbone takes {spec.things}, and the data are {self.takes.things}: see --help")
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

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device, but leave `index` in host memory, where it is used."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx)._replace(index=batch.index)

    def loader(
        self,
        split: str,
        view: Callable[[int], int | None] | None = None,
        batches: Callable[[EpochLoader], Iterator[Batch]] = lambda loader: iter(loader.raw),
    ) -> EpochLoader:
        """The loader of a split.

        Args:
            split: train, val or test.
            view: from the epoch to the augmented version that training shows; None for a new one in each epoch.
            batches: gives the batches of an epoch; by default those of raw samples.
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
            view=(view or self._new_view) if training else None,
            balance_targets=self.targets if training and self.balance == "sampler" else None,
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
            requests: what the batches consist of.
            persistent: whether loader processes wait for the next epoch.
            then: what loader processes do with a batch before they hand it over.
        """
        dataset = self.dataset(split)
        return DataLoader(
            dataset if then is None else MappedDataset(dataset, then),
            sampler=requests,
            batch_size=None,  # a request goes to the dataset as it is, which makes a whole batch
            collate_fn=identity,
            num_workers=self.num_workers,
            worker_init_fn=init_worker,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _new_view(self, epoch: int) -> int | None:
        return epoch if self.augments else None

    def _batches_done(self) -> int:
        """Batches of this training epoch that a run which resumes inside it has behind it."""
        return 0 if self.trainer is None else self.trainer.fit_loop.batch_idx + 1
