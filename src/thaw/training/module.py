"""The LightningModule that fine-tunes a network, for images and for texts."""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, ClassVar

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from thaw.distributed.agree import Failure, first_failure, gather_on_first
from thaw.errors import NonFiniteLossError, UserError
from thaw.finetuning.freezing import keep_frozen_in_eval
from thaw.finetuning.param_groups import decayed_names
from thaw.finetuning.phase import Plan
from thaw.finetuning.schedules import PhaseSchedule, Schedule, lr_factor
from thaw.models.network import Network
from thaw.seeds import seed_all, seed_of
from thaw.tasks.metrics import EpochMetrics
from thaw.tasks.task import Task
from thaw.training.loss_check import CheckedStep, LossCheck
from thaw.types import Batch, StepOutput


class FineTuningModule(LightningModule):
    """LightningModule that trains a network for a task.

    The FreezingCallback decides which stages train; learning rates follow `plan` and `schedule`. Nothing in a step
    waits for the device: losses are checked as `require_finite_losses` says, metrics are computed once an epoch.

    A subclass may override `step`, and take more arguments than these as keywords. Modules that it registers besides
    the network become part of checkpoints: those that require gradients are trained at the rate of the head, all others
    stay in evaluation mode.

    Args:
        network: the network to train.
        task: loss, what outputs mean, and metrics.
        class_names: of the classes or quantities, in the order of the network's outputs.
        plan: which stages train in which epoch.
        optimizer: makes the optimizer, like `build_optimizer` with its rates filled in.
        schedule: factor on all rates, from (step of the phase, steps of the phase).
        mixing: from images and class indices (B,) of a training batch to mixed images and targets (B, C); None: none.
        seed: seed of everything random in a training step.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
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
        self.decayed = decayed_names(network)
        self.loss_check = LossCheck()
        metrics_with_confusion = task.metrics()
        if (confusion := task.confusion()) is not None:
            metrics_with_confusion.add_metrics({"confusion": confusion})
        self.train_metrics = EpochMetrics(task.metrics().clone(postfix="/train"))
        self.val_metrics = EpochMetrics(task.metrics().clone(postfix="/val"))
        self.test_metrics = EpochMetrics(metrics_with_confusion.clone(postfix="/test"))
        self.confusion: Tensor | None = None
        """Confusion matrix of the last test: counts (C, C), true by predicted class; None if the task has none."""
        self.predicted_metrics: dict[str, float] = {}
        """Validation metrics of the last prediction pass, by name."""
        self._loaded_metrics: dict[str, Any] | None = None
        """State of `train_metrics` in the checkpoint that was loaded."""

    takes_activations: ClassVar[bool] = True
    """Whether `step` works on batches of cached activations. False: nothing is cached, and inputs are always raw. It is
    False in a subclass that overrides `step` or `forward`, unless the subclass sets it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if {"step", "forward"} & vars(cls).keys() and "takes_activations" not in vars(cls):
            cls.takes_activations = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs (B, C) of a batch."""
        return self.network(batch.inputs, start=batch.start)

    def step(self, batch: Batch) -> StepOutput:
        """Run one batch, of training (`self.training`) or of another split. Override it to train in another way."""
        logits = self(batch)
        return StepOutput(self.task.loss(logits, batch.target), logits, batch.target, batch.index)

    def setup(self, stage: str) -> None:
        """Set the modes of all modules: Lightning trains them in those that they come in."""
        if stage == "fit":
            self.train()

    def train(self, mode: bool = True) -> "FineTuningModule":
        """Set training mode, but keep what is frozen in evaluation mode."""
        super().train(mode)
        keep_frozen_in_eval(self.network)
        inside = set(self.network.modules())
        for module in self.modules():
            parameters = [] if module in inside else list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml in the run folder has them, and checkpoints hold plain values only."""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed everything random in the step; Lightning restores no random state."""
        seed_all(self.step_seed(batch_idx), self.device.type)

    def step_seed(self, batch_idx: int) -> int:
        """Return the seed of everything random in a training step of the current epoch."""
        return seed_of(self.seed, self.trainer.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Run one training batch; the returned loss is weighted by this process's share of the batch."""
        result = self._step(batch, batch_idx, "train")
        loss = result.loss
        if batch.total is not None and self.trainer.world_size > 1:
            # DDP averages over processes as if each had as many samples: some have one less.
            loss = loss * (self.trainer.world_size * len(batch.target) / batch.total)
        return result._replace(loss=loss, output=result.output.detach())._asdict()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Run one validation batch."""
        return self._step(batch, batch_idx, "val")._asdict()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Run one test batch."""
        return self._step(batch, batch_idx, "test")._asdict()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Run one validation batch, with the weights that the run ends with."""
        return self._step(batch, batch_idx, "val")._asdict()

    def _step(self, batch: Batch, batch_idx: int, split: str) -> StepOutput:
        """Run one batch of a split and record its metrics."""
        result = self.step(self._mix(batch) if split == "train" and self.mixing is not None else batch)
        self.loss_check.add(split, batch_idx, batch, result.loss)
        if self.trainer.world_size == 1:  # several processes have to communicate: too slow for every step
            self.require_finite_losses(wait=False)
        scored = self.task.scored(result.output.detach())
        epoch_metrics: EpochMetrics = getattr(self, f"{split}_metrics")
        epoch_metrics.update(scored, self.task.metric_target(result.target), result.loss.detach())
        return result

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._end_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._end_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._end_epoch("test")

    def on_predict_epoch_end(self) -> None:
        """Keep the validation metrics, which Lightning does not log of predictions."""
        self.require_finite_losses()
        self.predicted_metrics = {name: float(value) for name, value in self.val_metrics.compute().items()}

    def _end_epoch(self, split: str) -> None:
        self.require_finite_losses()
        values = getattr(self, f"{split}_metrics").compute()
        if (confusion := values.pop("confusion/test", None)) is not None:
            self.confusion = confusion.cpu()
        # Logged once an epoch: `self.log` in each step takes longer than the metrics do.
        self.log_dict(values, sync_dist=True)

    def require_finite_losses(self, wait: bool = True) -> None:
        """Raise an error on every process if a loss was NaN or infinite on any. Collective: call on every rank.

        Called after each step of a single process, at intervals and at the end of each epoch of several, and before
        each checkpoint is written, so that no checkpoint holds weights from after such a loss.

        Args:
            wait: Whether to wait for losses that the device has not reported yet.

        Raises:
            NonFiniteLossError: names the first such step, and holds its batch on the process that had it.
        """
        step = self.loss_check.look(wait)
        failure = first_failure(self.trainer, None if step is None else Failure(step.number, self._describe(step)))
        if failure is None:
            return
        self.loss_check = LossCheck()
        if step is not None and step.number == failure.step:
            raise NonFiniteLossError(failure.message, step.batch, step.batch_idx)
        raise NonFiniteLossError(failure.message)

    def new_optimizer(self, world_size: int) -> Optimizer:
        """Return an optimizer with all its parameter groups, for so many processes."""
        own = {name: p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("network.")}
        return self.make_optimizer(self.network, world_size=world_size, decayed=self.decayed, others=own)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer with all its parameter groups, and the schedule that scales their rates."""
        optimizer = self.new_optimizer(self.trainer.world_size)
        # Read first because it makes Lightning set up the loaders: only then the number of batches is known.
        assert self.trainer.estimated_stepping_batches > 0
        steps_per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        factor = partial(lr_factor, plan=self.plan, schedule=self.schedule, steps_per_epoch=steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": PhaseSchedule(optimizer, factor), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class names, the last metrics and the counts of the epoch so far. Collective."""
        self.require_finite_losses()
        checkpoint["class_names"] = self.class_names
        checkpoint["metrics"] = logged_metrics(self.trainer)
        checkpoint["epoch_metrics"] = gather_on_first(self.train_metrics.saved())  # each rank counts its own samples

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the counts of the epoch so far. Raises UserError if the number of processes changed."""
        states = checkpoint["epoch_metrics"]
        if len(states) != self.trainer.world_size:
            raise UserError(
                f"the run had {len(states)} processes and now has {self.trainer.world_size}, which would change its "
                f"batches. Continue with {len(states)}, or start a new run from its weights: init_from=..."
            )
        self._loaded_metrics = states[self.global_rank]

    def on_train_start(self) -> None:
        """Restore the counts of the epoch that the run resumes in."""
        if self._loaded_metrics is not None:  # not restored on loading: only now the module is on its device
            self.train_metrics.restore(self._loaded_metrics, self.device)
            self._loaded_metrics = None

    def _mix(self, batch: Batch) -> Batch:
        """Mix the inputs of a batch, images or features; the target becomes class probabilities (B, C)."""
        assert self.mixing is not None
        assert isinstance(batch.inputs, Tensor)
        shape = batch.inputs.shape
        images = batch.inputs if len(shape) == 4 else batch.inputs.reshape(len(batch.inputs), 1, 1, -1)
        inputs, target = self.mixing(images, batch.target)
        return batch._replace(inputs=inputs.reshape(shape), target=target)

    def _describe(self, step: CheckedStep) -> str:
        epoch = self.trainer.current_epoch
        phase = f"phase {self.plan.index(epoch) + 1} of {len(self.plan.phases)}"
        samples = ", ".join(str(index) for index in step.samples[:8].tolist())
        return (
            f"the loss is {step.loss.item()} in epoch {epoch}, {step.split} batch {step.batch_idx} ({phase}, samples "
            f"{samples} ...). Try a lower rate (optimizer.lr), trainer.gradient_clip_val=1 or "
            f"trainer.precision=32-true."
        )


def logged_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the values last logged, by name, without learning rates: those belong to a step, not to an epoch."""
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if not name.startswith("lr-")}
