"""Checkpoints of a run: the best ones, and the last."""

import os
import shutil
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

LAST = "last.ckpt"
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, and `last.ckpt` of the last epoch: its `save_last` writes after better ones only.

    `last_every_seconds`: last.ckpt is written no more often, but always where training ends. With features at hand an
    epoch may take less time than a checkpoint.

    Its state names files and not absolute paths: Lightning forgets the best score when a run resumes in another place,
    and goes on with a path that is not there.
    """

    def __init__(self, last_every_seconds: float, **choices: Any):
        super().__init__(**choices)
        self.last_every_seconds, self._last_saved_at = last_every_seconds, -inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = self._last_checkpoint_saved
        super().on_train_epoch_end(trainer, pl_module)
        same = self._last_checkpoint_saved != before and not self.save_weights_only
        if not trainer.fast_dev_run and (same or self._is_time(trainer)):  # type: ignore[attr-defined]
            self._save_last(trainer, Path(self._last_checkpoint_saved) if same else None)
            self._last_saved_at = time.monotonic()

    def _is_time(self, trainer: Trainer) -> bool:
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        passed = time.monotonic() - self._last_saved_at
        # Clocks differ from rank to rank, and all of them write together.
        return ends or trainer.strategy.broadcast(passed >= self.last_every_seconds)

    def _save_last(self, trainer: Trainer, same: Path | None) -> None:
        """`same`: what was just written for the epoch, where it is the best so far. It gets a second name."""
        last = Path(str(self.dirpath)) / LAST
        unfinished = last.with_suffix(".partial")
        if trainer.is_global_zero:
            unfinished.unlink(missing_ok=True)  # what is written into a second name is written into the first
        if same is None:
            trainer.save_checkpoint(unfinished)
        elif trainer.is_global_zero:
            _second_name(same, unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, last)

    def state_dict(self) -> dict[str, Any]:
        return {**self._with_paths(super().state_dict(), lambda path: Path(path).name), "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath))
        super().load_state_dict(
            self._with_paths({**state_dict, "dirpath": self.dirpath}, lambda path: str(here / Path(path).name))
        )

    @staticmethod
    def _with_paths(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
        """`state` with every path of a file changed; an empty one says that there is no such file yet."""
        changed = {name: change(state[name]) if state[name] else "" for name in PATHS}
        best = {change(path): score for path, score in state["best_k_models"].items()}
        return {**state, **changed, "best_k_models": best}


def _second_name(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # not on every file system
        shutil.copyfile(file, name)
