"""A hash of the samples a run was trained on and of their order, equal for two runs that saw the same."""

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
"""Number that stands for the view of evaluation."""
Hashes = NDArray[np.uint64]
"""Hashes of 64 bits, one per sample, (N,)."""


class SampleOrder(Callback):
    """Adds up a hash of (epoch, batch, view, sample) over all samples trained on, modulo 2^64.

    The sum changes if a sample comes in another batch or view, twice, or not at all. It does not depend on how many
    processes share a batch.

    Args:
        identities: gives the identity of every sample, by its index.
    """

    def __init__(self, identities: Callable[[], Sequence[Sample]]) -> None:
        self._sum = 0
        """Sum over the samples of this process."""
        self._identities = identities
        self.latest: str | None = None
        """Hash over all processes as 16 hexadecimal digits, set when training ends or a checkpoint is loaded."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add the batch."""
        hashes = self._sample_hashes[batch.index.numpy()]  # in host memory, see DataModule
        self._sum += batch_hash(hashes, trainer.current_epoch, batch_idx, batch.view)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log 24 of the 64 bits, all that the float of a logger holds."""
        pl_module.log("order/samples", float(self.total(trainer) % 2**24))

    def total(self, trainer: Trainer) -> int:
        """Return the sum over all processes. Collective: call on every rank."""
        signed = (self._sum + 2**63) % 2**64 - 2**63  # tensors know no unsigned integers of 64 bits
        here = torch.tensor(signed, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(here, reduce_op="sum")) % 2**64

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the hash over all processes."""
        self.latest = f"{self.total(trainer):016x}"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the hash over all processes."""
        checkpoint["order"] = f"{self.total(trainer):016x}"

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the stored hash."""
        self.latest = checkpoint["order"]
        self._sum = int(checkpoint["order"], 16) if trainer.is_global_zero else 0

    @cached_property
    def _sample_hashes(self) -> Hashes:
        return np.array([sample_hash(sample) for sample in self._identities()], np.uint64)


def order_of(trainer: Trainer) -> str | None:
    """Return the hash at the end of training; None if the trainer has no SampleOrder callback."""
    callbacks = [callback for callback in vars(trainer)["callbacks"] if isinstance(callback, SampleOrder)]
    return callbacks[0].latest if callbacks else None


def sample_hash(sample: Sample) -> int:
    """Return 64 bits that depend on a sample's identity and not on its index."""
    identity = "\0".join(sample).encode(errors="surrogateescape")
    return int.from_bytes(blake2b(identity, digest_size=8).digest(), "little")


def batch_hash(samples: Hashes, epoch: int, batch_idx: int, view: int | None) -> int:
    """Return the sum, modulo 2^64, of a hash of each sample with its epoch, batch and view."""
    position = np.array([epoch, batch_idx, EVALUATION if view is None else view], np.int64).view(np.uint64)
    mixed = np.zeros(1, np.uint64)
    for number in position:
        mixed = _scramble(mixed + number)
    return int(_scramble(samples ^ mixed).sum(dtype=np.uint64))


def _scramble(x: Hashes) -> Hashes:
    """SplitMix64's output function (Steele et al. 2014): flipping any input bit flips about half of the output."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
