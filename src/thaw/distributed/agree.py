"""What the processes of a trainer agree on, and what they keep equal. All functions are collective: call on every rank.

With one process they return what they were given.
"""

from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import distributed


class Failure(NamedTuple):
    """Something that went wrong in a step of one process."""

    step: int
    """Number of the step, counted in the same way on all processes."""
    message: str


def largest(trainer: Trainer, *values: float) -> list[float]:
    """Return the largest of each value over all processes. A flag is true if it is true anywhere."""
    if trainer.world_size == 1:
        return list(values)
    here = torch.tensor(values, dtype=torch.float32, device=trainer.strategy.root_device)
    return trainer.strategy.reduce(here, reduce_op="max").tolist()


def first_failure(trainer: Trainer, failure: Failure | None) -> Failure | None:
    """Return the earliest failure of all processes, with the process named; None if no process has one."""
    if trainer.world_size == 1 or trainer.strategy.reduce_boolean_decision(failure is None):
        return failure
    failures: list[Failure | None] = [None] * trainer.world_size
    distributed.all_gather_object(failures, failure)
    step, rank, message = min((f.step, rank, f.message) for rank, f in enumerate(failures) if f is not None)
    return Failure(step, f"process {rank + 1} of {trainer.world_size}: {message}")


def gather_on_first(value: Any) -> list[Any]:
    """Return the values of all processes on the first one; the others get a list of None."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.gather_object(value, values if distributed.get_rank() == 0 else None)
    return values


def from_first(value: Any) -> Any:
    """Return the first process's value on all processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


class SyncBuffers(Callback):
    """Gives every process the buffers of the first one before validation and before checkpoints.

    The BatchNorm statistics of a process contain its own share of the last step: DDP copies those of the first process
    before a step, not after it. The buffers of averaged weights are copied, too.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the buffers before validation reads them."""
        _copy_buffers_of_first(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the buffers before a checkpoint holds them."""
        _copy_buffers_of_first(trainer, pl_module)


def _copy_buffers_of_first(trainer: Trainer, module: LightningModule) -> None:
    if trainer.world_size == 1:
        return
    averages = [c._average_model for c in trainer.callbacks if isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    for copy in (module, *(average.module for average in averages if average is not None)):
        for buffer in copy.buffers():
            distributed.broadcast(buffer, src=0)
