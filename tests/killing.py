"""A run that ends at a chosen moment, as if its process were killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer

from tests.conftest import watched


class Killed(BaseException):
    """Nothing may catch it."""


class KillAt(Callback):
    """In the backward pass of a batch; `batch` None: in the validation of the epoch."""

    def __init__(self, epoch: int, batch: int | None):
        self.epoch, self.batch = epoch, batch

    def on_before_backward(self, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (self.epoch, self.batch):
            raise Killed

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.batch is None and trainer.current_epoch == self.epoch and not trainer.sanity_checking:
            raise Killed


@contextmanager
def killed(epoch: int, batch: int | None) -> Iterator[None]:
    """What trains inside is killed there."""
    with watched(KillAt(epoch, batch)), pytest.raises(Killed):
        yield
