"""How fast each epoch was, what it waited for, and how much memory it took."""

import sys
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from thaw.types import Batch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class Speed(Callback):
    """Logs how fast each training epoch was, on the first process and about that process.

    - `speed/samples_per_second`, `speed/epoch_seconds` (validation included);
    - `speed/data_wait`: share of the training time, from 0 to 1, in which the loop waited for the next batch;
    - `speed/cached`: share of the samples, from 0 to 1, whose frozen stages came from the cache;
    - `memory/cpu_gb`: the most that the process has used so far; `memory/gpu_gb`: on the device, in this epoch.

    The values go to the loggers directly: metrics of the run, which checkpoints hold, stay what the seed decides.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        """When the epoch began; None in one that the run has resumed inside."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._began = self._batch_done = self._waiting_since = time.perf_counter()
        self._waited, self._samples, self._cached = 0.0, 0, 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the time since the last batch as waiting."""
        if self._began is not None:
            self._waited += time.perf_counter() - self._waiting_since
            self._samples += len(batch.index)
            self._cached += len(batch.index) * (batch.start > 0)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Note when the batch was done; on a GPU, when its work was queued."""
        self._batch_done = self._waiting_since = time.perf_counter()

    def on_validation_end(self, *args: Any) -> None:
        """Do not count validation inside the epoch as waiting."""
        self._waiting_since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch."""
        if self._began is None or not self._samples:
            return
        training = self._batch_done - self._began
        values = {
            "speed/samples_per_second": self._samples / training,
            "speed/epoch_seconds": time.perf_counter() - self._began,
            "speed/data_wait": self._waited / training,
            "speed/cached": self._cached / self._samples,
            **memory(),
        }
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, trainer.global_step - 1)


def memory() -> dict[str, float]:
    """Most memory of this process, and of its part of the accelerator, in 10^9 bytes; only what can be known."""
    values = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        values["memory/cpu_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    if torch.cuda.is_available():
        values["memory/gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return values
