"""Which samples a run has trained on, in which order: one number, equal for two runs that saw the same."""

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from thaw.data.samples import Sample
from thaw.types import Batch

EVALUATION = -1
"""Stands for the view of the evaluation."""
Hashes = NDArray[np.uint64]


class SampleOrder(Callback):
    """Adds up a hash of (epoch, batch, view, sample) for every sample trained on, modulo 2^64.

    As each term holds the batch that it was in, samples that come in another step, in another view, twice or not at all
    change the sum; as it is a sum, it is the same however many processes share a batch. Reads `trainer.datamodule`,
    which knows what a sample is by its number: `identity(index)`.
    """

    def __init__(self, identities: Callable[[], Sequence[Sample]]) -> None:
        self._sum = 0
        self._samples = identities
        self.latest: str | None = None
        """Over all ranks, where training ended or was loaded: 16 hexadecimal digits."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        samples = self._identities[batch.index.cpu().numpy()]
        self._sum += batch_hash(samples, trainer.current_epoch, batch_idx, batch.view)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # 24 of the 64 bits, which a float of a logger holds whole. Equal on all ranks.
        pl_module.log("order/samples", float(self.total(trainer) % 2**24))

    def total(self, trainer: Trainer) -> int:
        """Over all ranks; to be asked for on all of them."""
        here = torch.tensor((self._sum + 2**63) % 2**64 - 2**63, device=trainer.strategy.root_device)  # as int64
        return int(trainer.strategy.reduce(here, reduce_op="sum")) % 2**64

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.latest = f"{self.total(trainer):016x}"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["order"] = f"{self.total(trainer):016x}"

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.latest = checkpoint["order"]
        self._sum = int(checkpoint["order"], 16) if trainer.is_global_zero else 0

    @cached_property
    def _identities(self) -> Hashes:
        return np.array([sample_hash(sample) for sample in self._samples()], np.uint64)


def order_of(trainer: Trainer) -> str | None:
    """The number at the end of training; None where nothing counts."""
    counts = [callback for callback in vars(trainer)["callbacks"] if isinstance(callback, SampleOrder)]
    return counts[0].latest if counts else None


def sample_hash(sample: Sample) -> int:
    """64 bits, whatever number the sample has in its source."""
    known_by = "\0".join(sample).encode(errors="surrogateescape")
    return int.from_bytes(blake2b(known_by, digest_size=8).digest(), "little")


def batch_hash(samples: Hashes, epoch: int, batch_idx: int, view: int | None) -> int:
    """The sum over the samples of a batch, modulo 2^64."""
    place = np.array([epoch, batch_idx, EVALUATION if view is None else view], np.int64).view(np.uint64)
    mixed = np.zeros(1, np.uint64)
    for number in place:
        mixed = _scrambled(mixed + number)
    return int(_scrambled(samples ^ mixed).sum(dtype=np.uint64))


def _scrambled(x: Hashes) -> Hashes:
    """The output function of SplitMix64 (Steele et al. 2014): every bit in changes about half of those out."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
