"""Early stopping that knows phases."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class PhaseEarlyStopping(EarlyStopping):
    """Lightning's EarlyStopping, counting in the plan's last phase only.

    A phase always lasts its epochs: the plan is a function of the epoch, and each phase has a schedule of that length.
    So what an earlier phase would count is never used, and patience starts anew where the last one begins.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped here stays so when it is resumed."""
        if _in_last_phase(trainer, pl_module) and self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _in_last_phase(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _in_last_phase(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)


def _in_last_phase(trainer: Trainer, module: Any) -> bool:
    return module.plan.in_last_phase(trainer.current_epoch)
