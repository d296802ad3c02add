"""Early stopping that knows phases."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class PhaseEarlyStopping(EarlyStopping):
    """Lightning's EarlyStopping, counting in the plan's last phase only.

    A phase always lasts its epochs: the plan is a function of the epoch, and each phase has a schedule of that length.
    So what an earlier phase would count is never used, and patience starts anew where the last one begins.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped here stays so when it is resumed."""
        if (
            _in_last_phase(trainer, pl_module)
            and self.wait_count >= self.patience
            and not _at_start(trainer, pl_module)
        ):
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was counted before belongs to the last phase of a run that has been extended since."""
        if _in_last_phase(trainer, pl_module) and _at_start(trainer, pl_module):
            self.wait_count, self.stopped_epoch = 0, 0
            self.best_score = torch.tensor(torch.inf if self.monitor_op == torch.lt else -torch.inf)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _in_last_phase(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _in_last_phase(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)


def _at_start(trainer: Trainer, module: Any) -> bool:
    """Of a phase."""
    return trainer.current_epoch == module.plan.start(trainer.current_epoch)


def _in_last_phase(trainer: Trainer, module: Any) -> bool:
    return module.plan.in_last_phase(trainer.current_epoch)
