"""Applies a plan to the network while Lightning trains it."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from thaw.finetuning.freezing import freeze_all_but
from thaw.finetuning.phase import Plan


class FreezingCallback(Callback):
    """Freezes and unfreezes stages as the plan says. Keeps no state: a checkpoint needs nothing from it.

    Expects `module.network.stages`, an ordered mapping of stage name to module.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    # Three hooks, because each misses a case: `setup` comes before DDP wraps but does not know the epoch of a resumed
    # run; `on_train_start` knows it; `on_train_epoch_start` is skipped when a run resumes inside an epoch.
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _freeze(pl_module, self.plan.trained(0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not at its start, which a run that resumes inside it does not see. Equal on all ranks."""
        pl_module.log("plan/phase", self.plan.index(trainer.current_epoch) + 1.0)
        trainable = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        pl_module.log("plan/trainable_parameters", float(trainable))

    def _apply(self, trainer: Trainer, module: LightningModule) -> None:
        changed = _freeze(module, self.plan.trained(trainer.current_epoch))
        if changed and isinstance(trainer.strategy, DDPStrategy):
            # DDP reduces only what was trainable when it wrapped; without this the ranks drift apart silently.
            trainer.strategy.model = module
            trainer.strategy.configure_ddp()


def _freeze(module: Any, trained: frozenset[str]) -> bool:
    return freeze_all_but(module.network.stages, trained)
