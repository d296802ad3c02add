"""Leaves a repro kit where a run fails."""

import logging
from itertools import islice
from pathlib import Path
from traceback import format_exception, walk_tb
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.loops import fetchers
from torch import Tensor

from thaw.distributed.ranks import is_lost
from thaw.errors import NonFiniteLossError
from thaw.replaying.kit import Crash, tensors_of, write_kit
from thaw.replaying.versions import versions
from thaw.runs.folder import LOG_FILE
from thaw.training import checkpoint_io as durable
from thaw.types import Batch

log = logging.getLogger(__name__)

LOG_LINES = 50


class CrashKit(Callback):
    """Remembers the batch at work: a reference, which costs nothing. Writes only where a step or loading a batch fails;
    what fails elsewhere, such as a metric's name, has nothing to be run again."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.batch_idx = 0
        self.loss: Tensor | None = None
        """Of the batch at work, as it goes into the backward pass."""
        self.split: str | None = None
        """Of a batch whose loss was found not to be finite; None: what the trainer is at."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batch, self.batch_idx, self.loss = batch, batch_idx, None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self.loss = loss.detach()

    def on_train_batch_end(self, *args: Any, **keywords: Any) -> None:
        self.batch = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.batch, self.batch_idx, self.loss = batch, batch_idx, None

    on_test_batch_start = on_validation_batch_start
    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        loading = _in_loader(exception)
        if isinstance(exception, NonFiniteLossError) and exception.step is not None:
            step = exception.step  # perhaps some steps behind the one at work
            self.batch, self.batch_idx, self.loss, self.split = step.batch, step.batch_idx, None, step.split
        if not _is_of_step(exception) or (self.batch is None and not loading):
            return
        run = Path(trainer.default_root_dir)
        try:
            batch = None if loading else self.batch
            crash = self._crash(trainer, pl_module, exception, batch)
            tensors = {} if batch is None else tensors_of(pl_module)
            kit = write_kit(run, crash, batch, tensors, _text(run, crash, exception))
        except Exception as error:  # it must not hide the one that the run failed with
            log.warning("no repro kit was left: %s: %s", type(error).__name__, error)
        else:
            what = "The samples to load" if batch is None else "The batch and the weights"
            rank = f" rank={crash.rank}" if crash.rank else ""
            log.error("%s are kept in %s. Again: python -m thaw.replay run=%s%s", what, kit, run, rank)

    def _crash(self, trainer: Trainer, module: Any, error: BaseException, batch: Batch | None) -> Crash:
        split = self.split or ("train" if trainer.training else "test" if trainer.testing else "val")
        if batch is None:
            batch_idx, samples, view = _to_load(trainer, split)
        else:
            batch_idx, samples, view = self.batch_idx, batch.index.tolist(), batch.view
        device = trainer.strategy.root_device
        own = error.own_message if isinstance(error, NonFiniteLossError) else None  # as one process alone meets it
        return Crash(
            error=type(error).__name__,
            message=own or str(error),
            split=split,
            epoch=trainer.current_epoch,
            phase=module.plan.index(trainer.current_epoch) + 1,
            batch_idx=batch_idx,
            global_step=trainer.global_step,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            seed=module.step_seed(batch_idx),
            loss=None if batch is None or self.loss is None else self.loss.item(),
            samples=samples,
            view=view,
            class_names=module.class_names,
            device=device.type,
            num_threads=torch.get_num_threads(),
            precision=trainer.precision_plugin.state_dict(),
            versions=versions(device, str(trainer.precision)),
        )


def _text(run: Path, crash: Crash, error: BaseException) -> str:
    file = run / LOG_FILE
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return "\n".join(
        [str(crash), "", "".join(format_exception(error)), f"{LOG_FILE} ended with", *lines[-LOG_LINES:], ""]
    )


def _is_of_step(error: BaseException) -> bool:
    """And not of another process, nor of what is done beside it. KeyboardInterrupt and Stopped are no failures."""
    elsewhere = isinstance(error, NonFiniteLossError) and error.step is None
    writes = any(frame.f_code.co_filename == durable.__file__ for frame, _ in walk_tb(error.__traceback__))
    return isinstance(error, Exception) and not elsewhere and not writes and not is_lost(error)


def _in_loader(error: BaseException) -> bool:
    """Whether it was raised while Lightning waited for a batch."""
    frames = walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename == fetchers.__file__ for frame, _ in frames)


def _to_load(trainer: Trainer, split: str) -> tuple[int, list[int], int | None]:
    """Of the batch that was waited for: its number, its samples, their view. The sampler knows: it is a function of the
    epoch."""
    loop: Any = trainer.fit_loop.epoch_loop if split == "train" else trainer._evaluation_loop
    loaders: Any = {
        "train": trainer.train_dataloader,
        "val": trainer.val_dataloaders,
        "test": trainer.test_dataloaders,
    }[split]
    number = loop.batch_progress.current.ready
    key = next(islice(loaders.sampler, number - loaders.sampler.first_batch, None), None)
    return (number, [], None) if key is None else (number, key.indices, key.view)
