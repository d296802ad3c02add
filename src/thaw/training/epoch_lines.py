"""One line for each epoch, on the terminal and in train.log: what trains, the metrics, and how long it will take."""

import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, Timer

from thaw.arguments import for_shell
from thaw.finetuning.fine_tunable import FineTunable
from thaw.finetuning.phase import Plan
from thaw.finetuning.table import phase_lines

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Prints a line for each phase at the start, and one after each epoch. The first process prints.

    Args:
        monitor: name of the metric whose best value is shown.
        mode: max or min.
    """

    def __init__(self, monitor: str, mode: str):
        self.monitor, self.better = monitor, max if mode == "max" else min
        self._began = self._rate = 0.0
        self._best: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line for each phase, and take the best value so far from the checkpoint that the run resumes from."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        log.info(phase_lines(cast(FineTunable, pl_module).plan, data.shown))
        self._began = time.monotonic()
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        self._best = None if score is None else float(score)

    # An epoch is complete when the next one starts: at its own end, its training metrics may not be logged yet.
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before."""
        if trainer.fit_loop.epoch_progress.current.completed and trainer.callback_metrics:
            self._print(trainer, pl_module, trainer.current_epoch - 1)
        self._began = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Remember the rate of this step."""
        self._rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        if trainer.callback_metrics:
            self._print(trainer, pl_module, trainer.fit_loop.epoch_progress.current.completed - 1)
        done, folder = trainer.fit_loop.epoch_progress.current.completed, trainer.default_root_dir
        if trainer.is_global_zero and done < trainer.max_epochs and (reason := reason_of_end(trainer)):  # type: ignore[operator]
            log.info("ended after epoch %d of %d: %s", done, trainer.max_epochs, reason)
            log.info("to train on from its best weights: python -m thaw.train %s ...", for_shell("init_from", folder))

    def _print(self, trainer: Trainer, module: Any, epoch: int) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.monitor in metrics:
            value = metrics[self.monitor]
            self._best = value if self._best is None else self.better(self._best, value)
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._began
            log.info(epoch_line(module.plan, epoch, metrics, self.monitor, self._best, self._rate, seconds))


def reason_of_end(trainer: Any) -> str:
    """Why training ended before the last epoch of the plan; empty in a fast_dev_run."""
    if trainer.fast_dev_run:
        return ""
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
            return f"early stopping, {callback.monitor} has not become better for {callback.patience} epochs"
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "trainer.max_time is over"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps={trainer.max_steps}"
    return "a callback has asked for it"


def epoch_line(
    plan: Plan,
    epoch: int,
    metrics: Mapping[str, float],
    monitor: str,
    best: float | None,
    lr: float,
    seconds: float,
) -> str:
    """The line of one epoch, such as `epoch  4/12  phase 2/2  445,266 trained  lr 1.5e-03  ...  0:07 left`.

    Args:
        plan: the plan of the run.
        epoch: number of the epoch, from 0; it is shown from 1.
        metrics: values by name.
        monitor: name of the metric whose best value is shown.
        best: best value of it so far.
        lr: rate of the head at the end of the epoch.
        seconds: how long the epoch took. Other phases may take longer or shorter: before the last one, the time of
            this phase alone is shown, as "0:07+".
    """
    total, number = plan.total_epochs, plan.index(epoch)
    width = len(str(total))
    words = [f"epoch {epoch + 1:{width}}/{total}", f"phase {number + 1}/{len(plan.phases)}"]
    if "plan/trainable_parameters" in metrics:
        words.append(f"{metrics['plan/trainable_parameters']:,.0f} trained")
    words.append(f"lr {lr:.1e}")
    for name in dict.fromkeys(["loss/train", "loss/val", monitor]):
        if name in metrics:
            words.append(f"{name} {metrics[name]:.4f}")
    if best is not None:
        words.append(f"best {best:.4f}")
    end = sum(phase.epochs for phase in plan.phases[: number + 1])
    left = round((end - epoch - 1) * seconds)
    if epoch + 1 < total:
        more = "" if number + 1 == len(plan.phases) else "+"
        minutes = f"{left // 3600}:{left // 60 % 60:02}" if left >= 3600 else f"{left // 60}"
        words.append(f"{minutes}:{left % 60:02}{more} left")
    return "  ".join(words)
