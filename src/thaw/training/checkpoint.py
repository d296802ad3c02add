"""Checkpoints of a run: the best ones, and the last, also inside an epoch."""

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from thaw.errors import UserError
from thaw.training.checkpoint_io import LAST, second_name
from thaw.training.stop_signals import signals

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, and `last.ckpt` of where the run is: its `save_last` writes after better ones only.

    `last_every_seconds`: last.ckpt is written no more often, but always where training ends. With features at hand an
    epoch may take less time than a checkpoint. `every_minutes`: how often inside an epoch; null: never, but where a
    signal wants the run to stop.

    Its state names files and not absolute paths: Lightning forgets the best score when a run resumes in another place,
    and goes on with a path that is not there.
    """

    def __init__(self, last_every_seconds: float, every_minutes: float | None, **choices: Any):
        super().__init__(**choices)
        if every_minutes is not None and not every_minutes >= 0:
            raise UserError(f"callbacks.checkpoint.every_minutes is null or a number of minutes, not {every_minutes}")
        self.last_every_seconds, self.every_minutes = last_every_seconds, every_minutes
        self._began_at = self._last_saved_at = -inf
        self._inside_epoch = self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._began_at = time.monotonic()
        signals.defers = not trainer.fast_dev_run  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Here all that came before is over and logged, validation too, and no gradient waits for the next batch."""
        if trainer.fast_dev_run or batch_idx % trainer.accumulate_grad_batches:  # type: ignore[attr-defined]
            return
        if batch_idx == 0:  # where the epoch before ended, the run was saved; a signal waits for one step more
            return
        passed = time.monotonic() - max(self._began_at, self._last_saved_at)
        due = self.every_minutes is not None and passed >= 60 * self.every_minutes
        # Clocks and signals differ from rank to rank, and all of them write together.
        if not trainer.strategy.reduce_boolean_decision(due or signals.received, all=False):
            return
        stops = signals.received_by_any(trainer)
        self._inside_epoch = True
        self._save_last(trainer, None)
        self._inside_epoch = False
        if stops:
            signals.stop(trainer)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(*args, **kwargs)
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _log_epoch(trainer)
        before = self._last_checkpoint_saved
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        same = self._last_checkpoint_saved != before and not self.save_weights_only
        stops = signals.received_by_any(trainer)
        if same or stops or self._is_time(trainer):
            self._save_last(trainer, Path(self._last_checkpoint_saved) if same else None)
        if stops:
            signals.stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if signals.received_by_any(trainer):
            signals.stop(trainer)
        signals.defers = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._inside_epoch:
            # Lightning has counted the batch that now begins. For what resumes, the one before it was the last.
            batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (batches["total"], batches["current"]):
                counts["ready"] -= 1
            batches["is_last_batch"] = False
            # Its training_epoch_loop.advance will find that validation is behind it, skip the rest, and count a step.
            if self._validated:
                checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _is_time(self, trainer: Trainer) -> bool:
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        passed = time.monotonic() - self._last_saved_at
        return trainer.strategy.reduce_boolean_decision(ends or passed >= self.last_every_seconds, all=False)

    def _save_last(self, trainer: Trainer, same: Path | None) -> None:
        """`same`: what was just written for the epoch, where it is the best so far. It gets a second name."""
        for logger in trainer.loggers:
            logger.save()  # what was logged so far; a resumed run does not log it again
        last = Path(str(self.dirpath)) / LAST
        if same is None:
            trainer.save_checkpoint(last, weights_only=False)
        elif trainer.is_global_zero:
            second_name(same, last)
        self._last_saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {**self._with_paths(super().state_dict(), lambda path: Path(path).name), "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath))
        super().load_state_dict(
            self._with_paths({**state_dict, "dirpath": self.dirpath}, lambda path: str(here / Path(path).name))
        )
        self.current_score = state_dict["current_score"]  # which Lightning forgets

    @staticmethod
    def _with_paths(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
        """`state` with every path of a file changed; an empty one says that there is no such file yet."""
        changed = {name: change(state[name]) if state[name] else "" for name in PATHS}
        best = {change(path): score for path, score in state["best_k_models"].items()}
        return {**state, **changed, "best_k_models": best}


def _log_epoch(trainer: Trainer) -> None:
    """Before the checkpoint that says that the epoch is over. Lightning does it after, and finds nothing left to log:
    a run that is killed in between would go on without it."""
    trainer._logger_connector.on_epoch_end()
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1  # as Lightning does: an epoch's values belong to its last step
    trainer._logger_connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1
