"""The base that every data source shares: splits, loaders, and the facts that a network is built from."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from thaw.caching.store import Store
from thaw.data.loader import Loader, MappedDataset, init_worker
from thaw.data.report import counts_table, listed
from thaw.data.sampler import EpochBatches, process_batch_size, require_shares
from thaw.data.samples import UNUSED, Sample, SampleRecord
from thaw.data.splits import SPLITS, Splits, completed_splits, few_per_class, fold_splits, random_splits, require_enough
from thaw.errors import UserError
from thaw.storage import digest_of_tensors
from thaw.types import Batch, BatchRequest, ImageSpec, Indices, InputSpec

if TYPE_CHECKING:
    from thaw.caching.prefix import FrozenPrefix

BALANCES = ("none", "loss", "sampler")


class DataModule(LightningDataModule):
    """Labelled samples, cut into train, val and test: as the data says, or by a seed.

    A source gives the class index of every sample, the class names, the split that each sample belongs to where the
    data says so, and `dataset`; all else is here. `split` (or `split_as`, `test_all`) comes before the loaders.
    """

    takes: type[InputSpec] = ImageSpec
    """How a network that suits the samples says what its inputs are."""

    def __init__(
        self,
        targets: NDArray[np.int64],
        class_names: list[str],
        given_splits: Sequence[str | None] | None = None,
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
        self.balance, self.global_batch_size = balance, global_batch_size
        self.val_fraction, self.test_fraction, self.labels_per_class = val_fraction, test_fraction, labels_per_class
        self.fold, self.folds = fold, folds
        self.input_spec: Any = None
        self.prefix: FrozenPrefix | None = None
        """Where batches may enter the network behind its frozen stages."""
        self.store: Store | None = None
        self.left_out: list[str] = []
        self.notes: list[str] = []

    def split(self) -> None:
        """Cut into train, val and test. Raises UserError where the numbers do not fit the samples."""
        targets, seed, val_fraction = self.targets, self.seed, self.val_fraction
        if self.num_classes < 2:
            raise UserError(f"there are at least two classes to tell apart, but this data has {self.class_names}")
        if self.given_splits is None:
            require_enough(targets, self.class_names, self.folds if self.fold is not None else 3)
        if self.fold is not None:
            if self.given_splits is not None:
                raise UserError(
                    "data.fold cuts the data anew, but it comes with splits of its own: type data.fold=null"
                )
            splits = fold_splits(targets, self.fold, self.folds, val_fraction, seed)
        elif self.given_splits is not None:
            splits = completed_splits(self.given_splits, targets, val_fraction, self.test_fraction, seed)
        else:
            splits = random_splits(targets, val_fraction, self.test_fraction, seed)
        if absent := [name for name, n in zip(self.class_names, self.counts(splits.train), strict=True) if not n]:
            raise UserError(f"no training sample of the class {', '.join(absent)}: it could never be learnt")
        self.splits, self.train_indices = splits, splits.train
        if self.labels_per_class is not None:
            self.train_indices = few_per_class(splits.train, targets, self.labels_per_class, seed)

    def split_as(self, recorded: Sequence[SampleRecord]) -> None:
        """Split as a run did, whatever was added to the data since. Raises UserError where samples of it are gone."""
        numbers = defaultdict(list)
        for index in reversed(range(len(self.targets))):
            numbers[self.identity(index)].append(index)
        parts: dict[str, list[int]] = defaultdict(list)
        gone = []
        for sample, label, split in recorded:
            if left := numbers[sample]:  # a table may have a sample more than once
                same = next((i for i in reversed(left) if self.class_names[self.targets[i]] == label), left[-1])
                left.remove(same)
                parts[split].append(same)
            else:
                gone.append(sample.name)
        if gone:
            raise UserError(
                f"{len(gone)} samples of the run are gone or changed ({', '.join(gone[:5])} ...): put them back"
            )
        self.splits = Splits(*(np.array(parts[name], dtype=np.int64) for name in SPLITS))
        self.train_indices = self.splits.train

    def test_all(self, but: Collection[str]) -> None:
        """For other data than a run's: test its test split, or all of it where it has none; `but` these contents."""
        known = np.array([self.identity(index).content in but for index in range(len(self.targets))])
        given = np.array([name or "" for name in self.given_splits or [None] * len(self.targets)])
        test = given == "test" if "test" in given else np.full(len(given), True)
        self.splits = Splits(*(np.flatnonzero(part & ~known) for part in (False, given == "val", test)))
        self.train_indices = self.splits.train

    def recorded(self) -> list[SampleRecord]:
        """Every sample, for later commands."""
        split = {index: name for name, indices in self.parts.items() for index in indices.tolist()}
        return [
            SampleRecord(self.identity(index), self.class_names[target], split.get(index, UNUSED))
            for index, target in enumerate(self.targets)
        ]

    def identity(self, index: int) -> Sample:
        """What sample number `index` is known by in later runs."""
        return Sample(str(index))

    def contents(self, samples: Indices) -> list[str]:
        """Digests of what each of them is, whatever is made of it. Here: of what the network is given in evaluation."""
        dataset = self.dataset()
        return [digest_of_tensors(dataset[BatchRequest([index], None)].inputs) for index in samples.tolist()]

    def recipe(self, view: int | None) -> dict[str, Any]:
        """All that decides what is made of a sample, plain values. `view`: None for the evaluation's."""
        return asdict(self.input_spec)

    def width(self, lengths: NDArray[np.int64]) -> int:
        """What samples of these lengths are padded to in one batch."""
        return int(lengths.max())

    @property
    def augments(self) -> bool:
        """Whether training samples look different in each epoch."""
        return False

    @property
    def training_texts(self) -> list[str]:
        """What words can be learnt from: nothing, where samples are no texts."""
        return []

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """(N,): how long each sample is, where samples of similar length make better batches."""
        return None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class, in the order of the class names."""
        return self.counts(self.train_indices)

    @property
    def class_weights(self) -> list[float] | None:
        """For the loss: each class weighs the same in sum, n / (C x its count); None where data.balance is not loss."""
        if self.balance != "loss":
            return None
        return [sum(self.class_counts) / (self.num_classes * count) for count in self.class_counts]

    def align(self, class_names: Sequence[str]) -> None:
        """Number the classes as a network trained before does. Raises UserError for a class that it does not know."""
        unknown = [name for name in self.class_names if name not in class_names]
        if unknown:
            raise UserError(
                f"the network was trained on the classes {', '.join(class_names)}; this data also has "
                f"{', '.join(unknown)}: leave it out, or start a new run with init_from=..."
            )
        number = np.array([class_names.index(name) for name in self.class_names])
        self.targets, self.class_names = number[self.targets], list(class_names)

    def summary(self) -> str:
        """The report in a line or two, for the start of a run."""
        sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in self.parts.items())
        lines = [f"data: {sizes} samples of {self.num_classes} classes"]
        if self.left_out:
            lines.append(f"{len(self.left_out)} samples were left out, as data.on_bad says: data.txt names them")
        return "\n".join([*lines, *(f"warning: {warning.splitlines()[0]}" for warning in self.warnings())])

    def report(self) -> str:
        """What the data holds, for people."""
        counts = {name: self.counts(part) for name, part in self.parts.items()}
        lines = [counts_table(self.class_names, counts).rstrip()]
        if self.left_out:
            lines.append(listed("left out: they cannot be used", self.left_out, most=len(self.left_out)))
        lines += [f"warning: {warning}" for warning in self.warnings()]
        if self.notes:
            lines.append(listed("not used", self.notes))
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """What is odd about the data; of each the first line says what it is."""
        return []

    @property
    def parts(self) -> dict[str, Indices]:
        """What is used for which split."""
        return {"train": self.train_indices, "val": self.splits.val, "test": self.splits.test}

    def counts(self, indices: Indices) -> list[int]:
        """How many of these samples each class has."""
        return np.bincount(self.targets[indices], minlength=len(self.class_names)).tolist()

    def use_input_spec(self, spec: InputSpec) -> None:
        """Told once, by the network: how its inputs must look. Raises UserError where it takes other things."""
        if not isinstance(spec, self.takes):
            raise UserError(f"this backbone takes {spec.things}, and the data are {self.takes.things}: see --help")
        self.input_spec = spec

    def use_store(self, store: Store | None) -> None:
        """Told once: where what was computed is kept; None: nothing is. Raises UserError where something must be."""
        self.store = store

    def require_shares(self, world_size: int) -> None:
        """Raises UserError where batches or splits cannot be shared out among so many processes."""
        process_batch_size(self.batch_size, self.global_batch_size, world_size)
        require_shares(self.parts, world_size)

    @abstractmethod
    def dataset(self) -> Dataset[Batch]:
        """All samples; `dataset[key]` is the batch of the key's samples, a pure function of the key."""

    def dataset_of(self, split: str) -> Dataset[Batch]:
        """The same, made for loading samples of this split."""
        return self.dataset()

    def train_dataloader(self) -> Iterable[Batch]:
        return self._loader("train")

    def val_dataloader(self) -> Iterable[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> Iterable[Batch]:
        return self._loader("test")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves a batch to the device, but leaves `index` in host memory, where it is used."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx)._replace(index=batch.index)

    def raw_loader(
        self,
        split: str,
        keys: Iterable[BatchRequest],
        persistent: bool = False,
        then: Callable[[Batch], Batch] | None = None,
    ) -> DataLoader[Any]:
        """Batches of samples of this split as they are. `persistent`: its processes wait for the next epoch. `then`:
        what they do with a batch before they hand it over."""
        dataset = self.dataset_of(split)
        # batch_size=None: the keys go to the dataset as they are, which makes whole batches.
        return DataLoader(
            dataset if then is None else MappedDataset(dataset, then),
            sampler=keys,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            worker_init_fn=init_worker,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _loader(self, split: str) -> Iterable[Batch]:
        training = split == "train"
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochBatches(
            self.parts[split],
            process_batch_size(self.batch_size, self.global_batch_size, world_size),
            self.seed,
            training and self.shuffle,
            rank,
            world_size,
            view=self._view if training else None,
            balance_targets=self.targets if training and self.balance == "sampler" else None,
            lengths=self.lengths if self.shuffle or not training else None,
        )
        raw = partial(self.raw_loader, split, sampler, persistent=True)
        return Loader(sampler, raw, self._batches(split), self._batches_done if training else lambda: 0)

    def _batches_done(self) -> int:
        """Of this epoch of training: none, unless the run goes on inside it. Asked for when the epoch begins."""
        return 0 if self.trainer is None else self.trainer.fit_loop.batch_idx + 1

    def _batches(self, split: str) -> Callable[[Loader], Iterator[Batch]]:
        return Loader.of_samples if self.prefix is None else partial(self.prefix.batches, split)

    def _view(self, epoch: int) -> int | None:
        """Of the training samples: a new one each epoch, but where what is kept is read."""
        if not self.augments:
            return None
        return self.prefix.view(epoch) if self.prefix is not None and self.prefix.start("train") else epoch


def _as_is(batch: Any) -> Any:
    return batch
