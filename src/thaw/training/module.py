"""The one LightningModule, for images and for texts."""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed
from torch.optim import Optimizer

from thaw.distributed.agree import require_on_all
from thaw.errors import UserError
from thaw.finetuning.freezing import keep_frozen_in_eval
from thaw.finetuning.param_groups import decayed_names
from thaw.finetuning.phase import Plan
from thaw.finetuning.schedules import PhaseSchedule, Schedule, lr_factor
from thaw.models.network import Network
from thaw.seeds import seed_of, seed_torch
from thaw.tasks.metrics import EpochMetrics
from thaw.tasks.single_label import SingleLabel
from thaw.types import Batch


class FineTuningModule(LightningModule):
    """Trains `network` for `task`. Which stages train is the Freezing callback's business; the rates follow `plan`."""

    def __init__(
        self,
        network: Network,
        task: SingleLabel,
        class_names: list[str],
        plan: Plan,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule,
        mixing: Callable[..., tuple[Tensor, Tensor]] | None,
        seed: int,
    ):
        super().__init__()
        self.network, self.task, self.plan = network, task, plan
        self.class_names, self.seed = list(class_names), seed
        self.make_optimizer, self.schedule, self.mixing = optimizer, schedule, mixing
        self.decayed = decayed_names(network.stages)
        self.train_metrics, self.val_metrics, self.test_metrics = (
            EpochMetrics(task.metrics().clone(postfix=f"/{split}")) for split in ("train", "val", "test")
        )
        self.test_confusion = task.confusion()
        self.confusion: Tensor | None = None
        """Of the last test: counts (C, C), true class by predicted class."""
        self._epoch_metrics: dict[str, Any] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return self.network(batch.inputs, start=batch.start)

    def train(self, mode: bool = True) -> "FineTuningModule":
        super().train(mode)
        keep_frozen_in_eval(self.network.stages)
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout and mixing are functions of the step: Lightning restores no random state, and a resumed run must draw
        # the same.
        seed_torch(self.step_seed(batch_idx), self.device.type)

    def step_seed(self, batch_idx: int) -> int:
        return seed_of(self.seed, self.trainer.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._step(batch if self.mixing is None else self._mixed(batch), batch_idx, "train")
        if batch.total is None or self.trainer.world_size == 1:
            return loss
        # DDP takes the mean over processes, as if each had as many samples: up to one is missing.
        return loss * (self.trainer.world_size * len(batch.target) / batch.total)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, batch_idx, "test")

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")
        self.confusion = self.test_confusion.compute().cpu()
        self.test_confusion.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.network.stages, world_size=self.trainer.world_size, decayed=self.decayed)
        # Asked first because it makes Lightning set the loaders up: only then is the number of batches known.
        assert self.trainer.estimated_stepping_batches > 0
        steps_per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        factor = partial(lr_factor, plan=self.plan, schedule=self.schedule, steps_per_epoch=steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": PhaseSchedule(optimizer, factor), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_names"] = self.class_names
        checkpoint["metrics"] = logged_metrics(self.trainer)
        # Each rank counts its own samples, and one of them writes.
        checkpoint["epoch_metrics"] = _of_every_rank(self.train_metrics.saved())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        counted = checkpoint["epoch_metrics"]
        if len(counted) != self.trainer.world_size:
            raise UserError(
                f"the run had {len(counted)} processes, and has {self.trainer.world_size} now: its batches would be "
                f"others. Go on with {len(counted)}, or start a new run from its weights: init_from=..."
            )
        self._epoch_metrics = counted[self.global_rank]

    def on_train_start(self) -> None:
        if self._epoch_metrics is not None:  # here all is on the device
            self.train_metrics.restore(self._epoch_metrics, self.device)
            self._epoch_metrics = None

    def _step(self, batch: Batch, batch_idx: int, split: str) -> Tensor:
        logits = self(batch)
        loss = self.task.loss(logits, batch.target)
        # In validation, too: it comes before the checkpoint of its epoch is written.
        require_on_all(
            self.trainer, bool(torch.isfinite(loss)), lambda: self._not_finite(loss, batch, batch_idx, split)
        )
        probabilities, target = self.task.probabilities(logits.detach()), self.task.classes(batch.target)
        getattr(self, f"{split}_metrics").update(probabilities, target, loss.detach())
        if split == "test":
            self.test_confusion.update(probabilities, target)
        return loss

    def _mixed(self, batch: Batch) -> Batch:
        """Inputs, and (B,) class indices, which become (B, C) class probabilities. Features are mixed as images are."""
        assert self.mixing is not None
        assert isinstance(batch.inputs, Tensor)
        shape = batch.inputs.shape
        images = batch.inputs if len(shape) == 4 else batch.inputs.reshape(len(batch.inputs), 1, 1, -1)
        inputs, target = self.mixing(images, batch.target)
        return batch._replace(inputs=inputs.reshape(shape), target=target)

    def _log_epoch(self, split: str) -> None:
        """Once an epoch: `self.log` at each step costs more than the metrics do (3 ms of a step of 60 were seen)."""
        self.log_dict(getattr(self, f"{split}_metrics").compute(), sync_dist=True)

    def _not_finite(self, loss: Tensor, batch: Batch, batch_idx: int, split: str) -> str:
        epoch = self.trainer.current_epoch
        phase = f"phase {self.plan.index(epoch) + 1} of {len(self.plan.phases)}"
        samples = ", ".join(str(index) for index in batch.index[:8].tolist())
        return (
            f"the loss is {loss.item()} in epoch {epoch}, {split} batch {batch_idx} ({phase}, samples {samples} ...): "
            f"stopped. Try a lower rate (optimizer.lr), trainer.gradient_clip_val=1 or trainer.precision=32-true."
        )


def _of_every_rank(value: Any) -> list[Any]:
    """On the first rank, which writes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found = [None] * distributed.get_world_size()
    distributed.gather_object(value, found if distributed.get_rank() == 0 else None)
    return found


def logged_metrics(trainer: Trainer) -> dict[str, float]:
    """The values last logged, by name, without learning rates: those belong to a step, not to an epoch."""
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if not name.startswith("lr-")}
