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

    - `speed/samples_per_second` of training, `speed/epoch_seconds` with validation;
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
        self._began = self._since = time.perf_counter()
        self._waited = self._computed = 0.0
        self._samples = self._cached = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the time since the last batch as waiting."""
        if self._began is not None:
            self._waited += self._lap()
            self._samples += len(batch.index)
            self._cached += len(batch.index) * (batch.start > 0)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count the time of the batch; on a GPU, until its work is queued."""
        if self._began is not None:
            self._computed += self._lap()

    def on_validation_end(self, *args: Any) -> None:
        """Leave out validation."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch."""
        if self._began is None or not self._samples:
            return
        training = self._waited + self._computed
        values = {
            "speed/samples_per_second": self._samples / training,
            "speed/epoch_seconds": time.perf_counter() - self._began,
            "speed/data_wait": self._waited / training,
            "speed/cached": self._cached / self._samples,
            **memory(),
        }
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, trainer.global_step - 1)

    def _lap(self) -> float:
        """Seconds since the last call, or since validation."""
        last, self._since = self._since, time.perf_counter()
        return self._since - last


def memory() -> dict[str, float]:
    """Most memory of this process, and of its part of the accelerator, in 10^9 bytes; only what can be known."""
    values = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        values["memory/cpu_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    if torch.cuda.is_available():
        values["memory/gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return values
