"""What the processes of a trainer decide together, and what they keep equal."""

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import distributed

from thaw.distributed.ranks import RaisedByAllError


class NotFiniteAnywhereError(FloatingPointError, RaisedByAllError):
    own: str | None = None
    """Of this process; None where its loss is finite."""


def require_on_all(trainer: Trainer, finite: bool, message: Callable[[], str]) -> None:
    """Raises FloatingPointError on every process in the same step, with the message of the first that is not finite."""
    if trainer.world_size == 1:
        if not finite:
            raise FloatingPointError(message())
        return
    if trainer.strategy.reduce_boolean_decision(finite):
        return
    said: list[str | None] = [None] * trainer.world_size
    distributed.all_gather_object(said, None if finite else message())
    rank, first = next((rank, text) for rank, text in enumerate(said) if text is not None)
    error = NotFiniteAnywhereError(f"process {rank + 1} of {trainer.world_size}: {first}")
    error.own = said[trainer.global_rank]
    raise error


class SyncBuffers(Callback):
    """Gives all processes the buffers of the first before they are validated and kept.

    Each has BatchNorm statistics of its own share of the last step: DDP hands those of the first round before the next
    one. Averages of weights have gathered them over all steps.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _follow_the_first(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _follow_the_first(trainer, pl_module)


def _follow_the_first(trainer: Trainer, module: Any) -> None:
    if trainer.world_size == 1:
        return
    averages = [c._average_model for c in trainer.callbacks if isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    for network in (module.network, *(average.module.network for average in averages if average is not None)):
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)
