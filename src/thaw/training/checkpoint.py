"""Checkpoints of a run: the best ones, and the last one, also inside an epoch."""

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from thaw.distributed.agree import largest
from thaw.finetuning.fine_tunable import FineTunable
from thaw.training.checkpoint_io import LAST, link_checkpoint
from thaw.training.stop_signals import signals

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
"""Entries of ModelCheckpoint's state that hold a path."""
LOOK_SECONDS = 0.5
"""Time, about, between two looks of several processes at their clocks and signals."""
MOST_BATCHES = 50
"""Batches until the processes of a run look at their clocks and signals together; fewer where they take long."""


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint that also keeps `last.ckpt`, the state to resume from.

    Lightning's own `save_last` writes only when a top-k checkpoint is saved. Checkpoints hold file names in place of
    absolute paths, so that a run folder may be moved; with paths, Lightning would then lose the best score.

    Args:
        last_every_seconds: Shortest time between the `last.ckpt` of two epochs, seconds; it is always written where
            training ends. On cached features an epoch may take less time than a checkpoint.
        every_minutes: How often `last.ckpt` is written inside an epoch; None: only if a signal stops the run.
        choices: Arguments of ModelCheckpoint.
    """

    def __init__(self, last_every_seconds: float, every_minutes: float | None, **choices: Any):
        super().__init__(**choices)
        self.last_every_seconds, self.every_minutes = last_every_seconds, every_minutes
        self._began_at = self._last_saved_at = -inf
        self._looked_at, self._looked_batch, self._next_look = -inf, 0, 0
        self._inside_epoch = self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of checkpoints within an epoch."""
        super().on_train_start(trainer, pl_module)
        self._began_at = time.monotonic()
        signals.deferred = not trainer.fast_dev_run  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget how long a batch takes: another phase may train more stages."""
        self._looked_at, self._looked_batch, self._next_look = time.monotonic(), 0, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save and stop if it is time to: the batch before is done and logged, and no gradient is accumulated."""
        if trainer.fast_dev_run or batch_idx % trainer.accumulate_grad_batches or batch_idx < self._next_look:  # type: ignore[attr-defined]
            return
        if batch_idx == 0:  # the run was saved where the last epoch ended; a signal waits for one more step
            return
        due, stop = self._look(trainer, pl_module, batch_idx)
        if not due and not stop:
            return
        self._inside_epoch = True
        self._save_last(trainer, None)
        self._inside_epoch = False
        if stop:
            signals.stop(trainer)

    def _look(self, trainer: Trainer, pl_module: FineTunable, batch_idx: int) -> tuple[bool, bool]:
        """Return whether a checkpoint is due and whether to stop, with the same result on all processes.

        Several processes have to communicate for that, so it also decides at which batch they do so again.
        """
        if trainer.world_size > 1:
            pl_module.require_finite_losses(wait=False)
        now = time.monotonic()
        passed = now - max(self._began_at, self._last_saved_at)
        is_due = self.every_minutes is not None and passed >= 60 * self.every_minutes
        batch_seconds = (now - self._looked_at) / max(batch_idx - self._looked_batch, 1)
        due, stop, batch_seconds = largest(trainer, is_due, signals.received, batch_seconds)
        self._looked_at, self._looked_batch = now, batch_idx
        self._next_look = batch_idx + (batches_to_next_look(batch_seconds) if trainer.world_size > 1 else 1)
        return bool(due), bool(stop)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Note that training went on after the last validation."""
        super().on_train_batch_end(*args, **kwargs)
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that validation is over."""
        super().on_validation_end(trainer, pl_module)
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best and the last checkpoint."""
        _log_epoch(trainer)
        last_written = self._last_checkpoint_saved
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        saved = self._last_checkpoint_saved != last_written and not self.save_weights_only
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        due = ends or time.monotonic() - self._last_saved_at >= self.last_every_seconds
        due, stop = map(bool, largest(trainer, due, signals.received))
        if saved or due or stop:
            self._save_last(trainer, Path(self._last_checkpoint_saved) if saved else None)
        if stop:
            signals.stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop if a signal came."""
        super().on_train_end(trainer, pl_module)
        if any(largest(trainer, signals.received)):
            signals.stop(trainer)
        signals.deferred = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct Lightning's counters in a checkpoint within an epoch."""
        if self._inside_epoch:
            # Lightning has already counted the batch that begins now. A resumed run must begin with it.
            batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (batches["total"], batches["current"]):
                counts["ready"] -= 1
            batches["is_last_batch"] = False
            # If the batch before was validated, training_epoch_loop.advance skips the rest of that step and counts it.
            if self._validated:
                checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _save_last(self, trainer: Trainer, saved: Path | None) -> None:
        """Write `last.ckpt`, or link it to `saved`, if this epoch was just written as one of the best."""
        for logger in trainer.loggers:
            logger.save()  # a resumed run does not log again what came before
        last = Path(str(self.dirpath)) / LAST
        if saved is None:
            trainer.save_checkpoint(last, weights_only=False)
        elif trainer.is_global_zero:
            link_checkpoint(saved, last)
        self._last_saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state with file names in place of paths."""
        return {**self._with_paths(super().state_dict(), lambda path: Path(path).name), "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned; its files lie in this run's folder of checkpoints."""
        folder = Path(str(self.dirpath))
        super().load_state_dict(
            self._with_paths({**state_dict, "dirpath": self.dirpath}, lambda path: str(folder / Path(path).name))
        )
        self.current_score = state_dict["current_score"]  # Lightning saves it and does not load it

    @staticmethod
    def _with_paths(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
        """Return `state` with every path changed; an empty path means that there is no such file yet."""
        changed = {name: change(state[name]) if state[name] else "" for name in PATHS}
        best = {change(path): score for path, score in state["best_k_models"].items()}
        return {**state, **changed, "best_k_models": best}


def batches_to_next_look(batch_seconds: float) -> int:
    """Return how many batches take about `LOOK_SECONDS`, from 1 to `MOST_BATCHES`."""
    return max(1, int(min(LOOK_SECONDS / max(batch_seconds, 1e-9), MOST_BATCHES)))


def _log_epoch(trainer: Trainer) -> None:
    """Log an epoch before its checkpoint is written. Lightning does it afterwards, and then has nothing left to log.

    A run that was killed in between would continue without these values.
    """
    trainer._logger_connector.on_epoch_end()
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1  # as Lightning does: an epoch's values belong to its last step
    trainer._logger_connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1


def best_checkpoint(trainer: Trainer) -> Path | None:
    """File with the best monitored metric; None if no checkpoint was kept, as in fast_dev_run."""
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    return Path(path) if path else None
