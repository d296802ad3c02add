"""A data module whose batches enter the network behind its frozen stages, where that is possible and worth it."""

from collections.abc import Iterable, Iterator
from functools import partial
from math import prod
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from thaw.caching.activations import Activations
from thaw.caching.decoded import decode_split
from thaw.caching.prefix import FrozenPrefix
from thaw.caching.store import Store
from thaw.data.image_module import ImageDataModule
from thaw.data.loader import EpochLoader
from thaw.data.module import DataModule
from thaw.finetuning.phase import Plan
from thaw.models.network import Network
from thaw.types import Batch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class CachedDataModule(LightningDataModule):
    """Wraps a data module: the output of frozen stages is computed once per sample and cached.

    The stage at which batches enter the network depends on the configuration and the epoch, not on what is cached.

    Args:
        data: the samples.
        network: what is trained on them.
        plan: which stages are frozen when.
        store: where activations and decoded images are kept.
        dtype: type in which activations are stored: float32, float16 or bfloat16; None for the computed type.
        batch_size: number of samples whose activations are computed at once.
        mixes: whether training mixes the images of a batch; what frozen stages give of those cannot be kept.
        raw_only: whether all batches are raw samples.
    """

    def __init__(
        self,
        data: DataModule,
        network: Network,
        plan: Plan,
        store: Store,
        dtype: str | None,
        batch_size: int,
        mixes: bool = False,
        raw_only: bool = False,
    ):
        super().__init__()
        self.data, self.network, self.plan, self.store = data, network, plan, store
        self.mixes, self.raw_only = mixes, raw_only
        self.dtype = None if dtype is None else DTYPES[dtype]
        self.prefix = FrozenPrefix(network, data, store, self.dtype, batch_size)
        self._phase: int | None = None
        self._activations: dict[tuple[str, int | None, int], Activations | None] = {}

    def setup(self, stage: str) -> None:
        """Hand the trainer on to the wrapped data module."""
        self.data.trainer = self.trainer

    def train_dataloader(self) -> Iterable[Batch]:
        """Batches of training samples, or of their activations."""
        return self._loader("train")

    def val_dataloader(self) -> Iterable[Batch]:
        """Batches of validation samples, or of their activations."""
        return self._loader("val")

    def test_dataloader(self) -> Iterable[Batch]:
        """Batches of test samples, or of their activations."""
        return self._loader("test")

    def predict_dataloader(self) -> Iterable[Batch]:
        """Batches of validation samples, or of their activations."""
        return self.val_dataloader()

    def __getattr__(self, name: str) -> Any:
        """What the wrapped data module has: `class_names`, `targets`, `source`, `image(index)` ..."""
        if name == "data":  # not set yet
            raise AttributeError(name)
        return getattr(self.data, name)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device as the wrapped data module does."""
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Finish a batch on the device as the wrapped data module does; activations stay as they are."""
        return batch if batch.start else self.data.on_after_batch_transfer(batch, dataloader_idx)

    def shown(self, epoch: int) -> str:
        """What training reads in an epoch and in those that are like it, for people."""
        shown, start = self.data.shown(epoch), self.start("train", epoch)
        return f"cached outputs of {list(self.network.stages)[start - 1]} for {shown}" if start else shown

    def start(self, split: str, epoch: int | None) -> int:
        """Stage at which the batches of a split enter in an epoch, None: outside of training; 0 means raw samples."""
        trainer = self.trainer
        assert trainer is not None, "only a trainer asks for batches"
        limit = getattr(trainer, f"limit_{split}_batches")
        if isinstance(limit, int) or limit < 1.0:  # such a short epoch would leave most activations unused
            return 0
        if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            return 0  # weights may be sharded; some strategies that shard them derive from DDPStrategy
        never_trained = self.plan.never_trained(epoch)
        frozen = never_trained if epoch is None else self.plan.frozen_prefix(epoch)
        if self.raw_only or (split == "train" and self.mixes):
            return 0
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if split != "train" and averages:
            # The averages of stages that were trained before still change, also while these are frozen.
            frozen = never_trained
        return self._start_behind(frozen, epoch)

    def _start_behind(self, frozen: int, epoch: int | None) -> int:
        """Stage at which batches enter if the first `frozen` stages are frozen; 0 means raw samples.

        Features of a wholly frozen backbone are always cached, other activations only if they fit into the budget.
        """
        if frozen in (0, self.prefix.last):
            return frozen
        cut = self.prefix.cut(frozen)
        if cut is None:
            return 0
        train, val = self.data.parts["train"], self.data.parts["val"]
        views = {None} if epoch is None else {self.data.view(other) for other in self.plan.epochs_like(epoch)}
        if self.data.lengths is None:
            rows = len(train) * len(views) + len(val)
        else:
            rows = int(self.data.lengths[train].sum()) * len(views) + int(self.data.lengths[val].sum())
        num_bytes = prod(cut.shape) * (self.dtype or cut.dtype).itemsize * rows
        return cut.start if num_bytes <= self.store.budget_bytes else 0

    def _loader(self, split: str) -> Iterable[Batch]:
        if isinstance(self.data, ImageDataModule) and self.data.keeps_decoded:
            decode_split(self.data, split, self.store)
        return self.data.loader(split, partial(self._batches, split))

    def _batches(self, split: str, loader: EpochLoader) -> Iterator[Batch]:
        epoch = self._epoch
        start = self.start(split, epoch)
        if not start:
            return iter(loader.raw)
        view = self.data.view(epoch) if split == "train" and epoch is not None else None
        phase = None if epoch is None else self.plan.index(epoch)
        if phase != self._phase:  # within a phase the weights of its prefix are the same
            self._phase, self._activations = phase, {}
        key = (split, view, start)
        if key not in self._activations:
            self._activations[key] = self.prefix.activations(split, view, start)
        if (activations := self._activations[key]) is not None:
            return activations.batches(loader.sampler)
        return (self.prefix.run(batch, start) for batch in loader.raw)  # the same numbers, computed in each epoch

    @property
    def _epoch(self) -> int | None:
        """The current epoch; None outside of training."""
        trainer: Any = self.trainer
        return trainer.current_epoch if trainer.state.fn == TrainerFn.FITTING else None
