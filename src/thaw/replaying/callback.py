"""The callback that writes a crash kit when a run fails."""

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

from thaw.arguments import for_shell
from thaw.distributed.ranks import is_peer_lost
from thaw.faults import fault
from thaw.replaying.kit import CrashKit, tensors_of, write_kit
from thaw.runs.files import LOG_FILE
from thaw.training import checkpoint_io
from thaw.types import Batch, BatchRequest
from thaw.versions import current_versions

log = logging.getLogger(__name__)

LOG_LINES = 50
"""How many of the last lines of train.log go into crash.txt."""


class CrashKitCallback(Callback):
    """Writes a crash kit into the run folder when a step, or loading a batch, fails.

    Until then it only holds a reference to the current batch, which costs nothing. No kit is written for errors outside
    of steps and loading, faults of the machine (thaw.faults), a lost peer process, an interrupt, or a checkpoint that
    cannot be written.

    An exception may carry the batch that failed as `batch` and `batch_idx`; `batch` is None on a process whose own
    batch did not fail. Without these attributes, the current batch is taken.

    Attributes:
        batch: The current batch; None between batches.
        batch_idx: Its number in the epoch, from 0.
        loss: Its loss as it goes into the backward pass; None until then.
    """

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.batch_idx = 0
        self.loss: Tensor | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember the batch."""
        self.batch, self.batch_idx, self.loss = batch, batch_idx, None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the loss."""
        self.loss = loss.detach()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Forget the batch: its step succeeded."""
        self.batch = None

    on_validation_batch_start = on_test_batch_start = on_train_batch_start
    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the kit if a step or loading failed. Never raises, so that the run's own error is seen."""
        files = {frame.f_code.co_filename for frame, _ in walk_tb(exception.__traceback__)}
        loading = fetchers.__file__ in files  # raised while Lightning waited for a batch
        batch = None if loading else getattr(exception, "batch", self.batch)
        is_failure = (
            isinstance(exception, Exception)
            and fault(exception) is None
            and not is_peer_lost(exception)
            and checkpoint_io.__file__ not in files
        )
        if not is_failure or (batch is None and not loading):
            return
        run = Path(trainer.default_root_dir)
        try:
            kit = self._kit(trainer, pl_module, exception, batch)
            folder = write_kit(run, kit, _crash_text(run, kit, exception))
        except Exception as error:
            log.warning("no crash kit was written: %s: %s", type(error).__name__, error)
        else:
            command = f"python -m thaw.replay {for_shell('run', run)} rank={kit.rank}"
            log.error("The crash kit is in %s. To run the step again: %s", folder, command)

    def _kit(self, trainer: Trainer, module: Any, error: BaseException, batch: Batch | None) -> CrashKit:
        split = "train" if trainer.training else "test" if trainer.testing else "val"
        if batch is None:
            batch_idx, request = _pending_request(trainer, split)
        else:
            batch_idx, request = getattr(error, "batch_idx", self.batch_idx), (batch.index.tolist(), batch.view)
        return CrashKit(
            error=f"{type(error).__name__}: {error}",
            non_finite=isinstance(error, FloatingPointError),
            split=split,
            epoch=trainer.current_epoch,
            batch_idx=batch_idx,
            rank=trainer.global_rank,
            seed=module.step_seed(batch_idx),
            loss=None if batch is not self.batch or self.loss is None else self.loss.item(),
            request=request,
            class_names=module.class_names,
            num_threads=torch.get_num_threads(),
            precision=trainer.precision_plugin.state_dict(),
            versions=current_versions(trainer.strategy.root_device, str(trainer.precision)),
            batch=batch,
            tensors={} if batch is None else tensors_of(module),
        )


def _pending_request(trainer: Trainer, split: str) -> tuple[int, tuple[list[int], int | None]]:
    """Number and request of the batch that was being loaded. The sampler's order is a function of the epoch."""
    loop: Any = trainer.fit_loop.epoch_loop if split == "train" else trainer._evaluation_loop
    loaders = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}
    batch_idx, sampler = loop.batch_progress.current.ready, loaders[split].sampler  # type: ignore[union-attr]
    request = next(islice(sampler, batch_idx - sampler.first_batch, None), BatchRequest([], None))
    return batch_idx, (request.indices, request.view)


def _crash_text(run: Path, kit: CrashKit, error: BaseException) -> str:
    """Return the content of crash.txt."""
    values = [f"{name}: {value}" for name, value in vars(kit).items() if name not in ("error", "batch", "tensors")]
    log_file = run / LOG_FILE
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file.is_file() else []
    traceback = "".join(format_exception(error))
    return "\n".join([str(kit), "", *values, "", traceback, f"Last lines of {LOG_FILE}:", *lines[-LOG_LINES:], ""])
