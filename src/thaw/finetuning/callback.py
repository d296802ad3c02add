"""Applies a plan to the network while Lightning trains it."""

from typing import cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from thaw.finetuning.fine_tunable import FineTunable
from thaw.finetuning.freezing import freeze_all_but
from thaw.finetuning.phase import Plan


class FreezingCallback(Callback):
    """Freezes and unfreezes the parameters of `pl_module.network` as the plan says.

    It keeps no state: what trains is a function of the epoch, so checkpoints need nothing from it.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    # Three hooks, because each misses a case: `setup` comes before DDP wraps but does not know the epoch of a resumed
    # run; `on_train_start` knows it; `on_train_epoch_start` is skipped when a run resumes inside an epoch.
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze as in epoch 0, before DDP wraps the module."""
        if stage == "fit":
            freeze_all_but(cast(FineTunable, pl_module).network, self.plan.trained(0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze as in the epoch that the run starts or resumes in."""
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze as in the epoch that begins."""
        self._apply(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the phase. At the end of the epoch: a run that resumes inside it does not see its start."""
        pl_module.log("plan/phase", self.plan.index(trainer.current_epoch) + 1.0)
        trainable = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        pl_module.log("plan/trainable_parameters", float(trainable))

    def _apply(self, trainer: Trainer, module: LightningModule) -> None:
        network = cast(FineTunable, module).network
        changed = freeze_all_but(network, self.plan.trained(trainer.current_epoch))
        if changed and isinstance(trainer.strategy, DDPStrategy):
            # DDP reduces only what was trainable when it wrapped; without this the ranks drift apart silently.
            trainer.strategy.model = module
            trainer.strategy.configure_ddp()
