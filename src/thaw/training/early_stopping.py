"""Early stopping that knows the phases of a plan."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class PhaseEarlyStopping(EarlyStopping):
    """Lightning's EarlyStopping, active only in the last phase of the plan.

    Earlier phases always run for all their epochs, because schedules are functions of the plan. Patience starts again
    where the last phase begins.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the run had stopped early before it was resumed."""
        if _in_last_phase(trainer, pl_module) and not _at_phase_start(trainer, pl_module):
            trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts where the last phase begins: they may come from the former last phase of a longer plan."""
        if _in_last_phase(trainer, pl_module) and _at_phase_start(trainer, pl_module):
            self.wait_count, self.stopped_epoch = 0, 0
            self.best_score = torch.tensor(torch.inf if self.monitor_op == torch.lt else -torch.inf)

    def _should_skip_check(self, trainer: Trainer) -> bool:
        return super()._should_skip_check(trainer) or not _in_last_phase(trainer, trainer.lightning_module)


def _at_phase_start(trainer: Trainer, module: Any) -> bool:
    return trainer.current_epoch == module.plan.start(trainer.current_epoch)


def _in_last_phase(trainer: Trainer, module: Any) -> bool:
    return module.plan.in_last_phase(trainer.current_epoch)
