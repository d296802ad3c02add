"""What is asked of a network: the base class of tasks. No other code tests which task a run has.

B: batch size, C: outputs of the network: classes or quantities.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from thaw.data.labels import Labels
from thaw.errors import UserError
from thaw.signatures import keywords
from thaw.tasks.outputs import Outputs

RESERVED = {"loss", "confusion"}
"""Names of metrics that every task has."""
NO_METRICS: Mapping[str, Metric] = MappingProxyType({})


class Described(NamedTuple):
    """The result of one sample, for people."""

    columns: dict[str, Any]
    """Values by the columns of a table."""
    record: dict[str, Any]
    """The same with its structure, plain values by key."""
    counted: Sequence[str]
    """The labels that are counted over all samples."""


class Task(nn.Module, ABC):
    """What is asked of a network: kind of labels, loss, what outputs mean, metrics, how results are written.

    A module, so that what it learns of the training data is part of checkpoints.

    Args:
        num_classes: C.
        loss: Function of outputs (B, C) and targets. Returns the loss of each sample, (B,) or (B, C), or their mean.
        metrics: Metrics by name, each one number. `update` gets what it takes of `preds`, see `scored`; `target`, see
            `metric_target`; `value`, mean losses of batches; `weight`, the sizes of these batches.
        class_weights: factors on the loss, (C,), which the loss gets as `weighs_by`; None: it gets nothing.

    Raises:
        UserError: If the loss fails.
    """

    labels: ClassVar[type[Labels]]
    """Kind of the labels."""
    outputs: ClassVar[type[Outputs]]
    """What is kept of the outputs of a split."""
    result: ClassVar[str] = "probabilities"
    """What `predictions` gives, in a word."""
    gives_logits: ClassVar[bool] = False
    """Whether outputs are logits of classes that exclude each other: a head can then be chosen by its log loss, images
    can be mixed, and predictions calibrated."""
    many_losses: ClassVar[bool] = False
    """Whether the loss may give one number for each output of a sample; their mean is its loss."""
    settles: ClassVar[bool] = False
    """Whether validation decides after training what outputs mean."""
    weighs_by: ClassVar[str] = "weight"
    """Keyword by which the loss takes the weights of the classes."""
    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        loss: Callable[..., Tensor],
        metrics: Mapping[str, Metric],
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.num_classes = num_classes
        # Not persistent: they come from the configuration, not from a checkpoint.
        self.register_buffer("class_weights", class_weights, persistent=False)
        accepted = keywords(loss.forward if isinstance(loss, nn.Module) else getattr(loss, "func", loss))
        reduction = getattr(loss, "reduction", getattr(loss, "keywords", {}).get("reduction", "mean"))
        if reduction not in ("mean", "none"):
            raise UserError(f"loss.reduction={reduction}: a loss is the mean of its samples, whatever the batch size")
        if reserved := RESERVED & metrics.keys():
            raise UserError(f"task.metrics.{reserved.pop()} is a name of thaw's own: name it otherwise")
        if class_weights is not None and self.weighs_by not in accepted:
            raise UserError(f"loss takes no `{self.weighs_by}`, so it cannot weigh classes: type data.balance=sampler")
        self._loss, self._metrics = loss, dict(metrics)
        # Torch's own mean divides by the sum of the weights in the batch: a sample would count differently in another.
        self._loss_options = {"reduction": "none"} if "reduction" in accepted else {}

    @classmethod
    def metric_facts(cls, num_classes: int) -> dict[str, Any]:
        """Arguments of torchmetrics' classes that follow from the task."""
        return {}

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of outputs (B, C) and the targets of a batch; a scalar."""
        return self._losses(outputs, target).mean()

    def require_loss(self, target: Tensor, kind: str) -> None:
        """Raise UserError if the loss fails on a target of two samples; `kind`: what it holds, for messages."""
        try:
            losses = self._losses(torch.zeros(2, self.num_classes), target)
        except Exception as error:  # whatever the user's own code raises
            raise UserError(
                f"loss fails on outputs (2, {self.num_classes}) and {kind}: {type(error).__name__}: {error}"
            ) from error
        if losses.shape not in ((), (2,)):
            raise UserError(f"loss gives {tuple(losses.shape)} for 2 samples: return the loss of each, or their mean")

    def _losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        # float(), because they are bfloat16 in bf16-true.
        weights = {} if self.class_weights is None else {self.weighs_by: self.class_weights.float()}
        losses = self._loss(outputs.float(), self.encoded(target), **weights, **self._loss_options)
        return losses.mean(dim=1) if self.many_losses and losses.shape == outputs.shape else losses

    def encoded(self, target: Tensor) -> Tensor:
        """What the loss compares outputs with."""
        return target

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What outputs (B, C) say, (B, C): probabilities, or numbers in the user's unit."""

    def scored(self, outputs: Tensor) -> Tensor:
        """What metrics get as `preds`."""
        return self.predictions(outputs)

    def metric_target(self, target: Tensor) -> Tensor:
        """What metrics get as `target`."""
        return target

    def kept(self, outputs: Tensor) -> Tensor:
        """What is kept of outputs (B, C) as `Outputs.logits`."""
        return outputs.float()

    def metrics(self) -> MetricCollection:
        """Return new metrics for one split."""
        metrics = {"loss": MeanMetric(), **{name: metric.clone() for name, metric in self._metrics.items()}}
        # Without groups: torchmetrics puts metrics together whose first results agree, for good.
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]

    def confusion(self) -> Metric | None:
        """Return a new confusion matrix, which counts (C, C), true class by predicted class; None if there is none."""
        return None

    def settle(self, outputs: Outputs) -> dict[str, Tensor]:
        """Buffers of the task that follow from the outputs for validation, if it `settles`."""
        return {}

    def calibration(self, outputs: Outputs) -> dict[str, Any]:
        """What later commands need to read outputs, plain values; `outputs`: for validation."""
        return self.decision()

    def calibrate(self, calibration: Mapping[str, Any]) -> None:
        """Make predictions honest by what `calibration` returned, where the task has such a thing."""
        raise NotImplementedError

    @abstractmethod
    def describe(self, predictions: Sequence[float], names: Sequence[str], top_k: int) -> Described:
        """The result of one sample.

        Args:
            predictions: what `predictions` gave, (C,).
            names: of the classes or quantities.
            top_k: classes to name.
        """

    @abstractmethod
    def agreement(self, predictions: Tensor, expected: Tensor) -> tuple[float, float]:
        """Compare predictions (N, C) with those expected.

        Returns:
            The share of samples with the same result, and the largest difference, 0..1 or in standard deviations.
        """

    @abstractmethod
    def code(self, outputs: str) -> str:
        """Python that makes predictions of the expression `outputs`, without thaw."""

    def decision(self) -> dict[str, Any]:
        """What makes labels of predictions, besides the names; plain values, which exported files carry."""
        return {}

    def averaged(self, tasks: "Sequence[Task]") -> "Task":
        """The task that describes the mean of what several, this one the first, predict."""
        return self

    def folded_into(self, layer: nn.Linear) -> "Task":
        """Move what the task does to outputs into the last layer, in place, where it can be; return what is left."""
        return self
