"""The base that every data source shares: splits, loaders, and the facts that a network is built from."""

from abc import abstractmethod
from typing import Any

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from thaw.backbones.backbone import InputSpec
from thaw.data.batch import Batch
from thaw.data.sampler import EpochBatches
from thaw.data.splits import Indices, few_per_class, fold_splits, random_splits


class Source(LightningDataModule):
    """Labelled samples, cut into train, val and test by a seed.

    A source gives the class index of every sample, the class names, and `dataset`; all else is here. Raises ValueError
    where the numbers do not fit the samples.
    """

    def __init__(
        self,
        targets: NDArray[np.int64],
        class_names: list[str],
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        shuffle: bool,
        val_fraction: float,
        test_fraction: float,
        labels_per_class: int | None,
        fold: int | None,
        folds: int,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size}, but a batch has at least 1 sample")
        self.targets, self.class_names = targets, class_names
        self.seed, self.batch_size, self.num_workers, self.shuffle = seed, batch_size, num_workers, shuffle
        if fold is None:
            self.splits = random_splits(targets, val_fraction, test_fraction, seed)
        else:
            self.splits = fold_splits(targets, fold, folds, val_fraction, seed)
        self.train_indices = self.splits.train
        if labels_per_class is not None:
            self.train_indices = few_per_class(self.splits.train, targets, labels_per_class, seed)
        self.input_spec: InputSpec | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class, in the order of the class names."""
        return np.bincount(self.targets[self.train_indices], minlength=self.num_classes).tolist()

    def use_input_spec(self, spec: InputSpec) -> None:
        """Told once, by the network: how its inputs must look."""
        self.input_spec = spec

    @abstractmethod
    def dataset(self) -> Dataset[Batch]:
        """All samples; `dataset[indices]` is the batch of these samples, a pure function of the indices."""

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_indices, self.shuffle)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.splits.val, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.splits.test, shuffle=False)

    def _loader(self, indices: Indices, shuffle: bool) -> DataLoader[Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochBatches(indices, self.batch_size, self.seed, shuffle, rank, world_size)
        # batch_size=None: the sampler's lists of indices go to the dataset as they are, which makes whole batches.
        return DataLoader(
            self.dataset(),
            sampler=sampler,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def _as_is(batch: Any) -> Any:
    return batch
