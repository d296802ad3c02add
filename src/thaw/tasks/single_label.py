"""Single-label classification: its loss, probabilities and metrics. The training module never tests its task's kind.

B: batch size, C: classes.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, Metric, MetricCollection

from thaw.errors import UserError
from thaw.signatures import keywords
from thaw.tasks.metrics import single_label_confusion

RESERVED = {"loss", "confusion"}
"""Names of metrics that every task has."""
NO_METRICS: Mapping[str, Metric] = MappingProxyType({})


class SingleLabel(nn.Module):
    """Task in which each sample belongs to exactly one of C classes.

    Args:
        num_classes: C.
        loss: Function of logits (B, C) and classes (B,), or class probabilities (B, C) where images are mixed. Returns
            the loss of each sample (B,) or their mean. With class weights it also gets `weight` (C,).
        metrics: Metrics by name, each one number. `update` gets what it takes of `preds`, class probabilities (B, C);
            `target`, classes (B,); `value`, mean losses of batches; `weight`, the sizes of these batches.
        class_weights: C factors on the loss, in the order of the class names; None weighs all classes alike.

    Raises:
        UserError: If the loss fails, or `class_weights` does not have one for each class.
    """

    metric_arguments: ClassVar[Mapping[str, Any]] = {"task": "multiclass", "validate_args": False}
    """Arguments of torchmetrics' classes that follow from the task; validation would wait for the device."""
    gives_logits: ClassVar[bool] = True
    """Whether outputs are logits of classes that exclude each other: a head can then be chosen by its log loss."""
    class_weights: Tensor | None
    temperature: float = 1.0
    """Logits are divided by it before they become probabilities: above 1 for a network that is too sure of itself."""

    def __init__(
        self,
        num_classes: int,
        loss: Callable[..., Tensor] = cross_entropy,
        metrics: Mapping[str, Metric] = NO_METRICS,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        if class_weights is not None and not _are_weights(class_weights, num_classes):
            raise UserError(
                f"task.class_weights must be null, a list of {num_classes} numbers from 0 on, one for each class, or a "
                f"mapping from names of classes to numbers, but is {class_weights}. data.balance=loss computes them "
                f"from the data."
            )
        self.num_classes = num_classes
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float)
        # Not persistent: they come from the configuration, not from a checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        accepted = keywords(loss.forward if isinstance(loss, nn.Module) else getattr(loss, "func", loss))
        reduction = getattr(loss, "reduction", getattr(loss, "keywords", {}).get("reduction", "mean"))
        if reduction not in ("mean", "none"):
            raise UserError(f"loss.reduction={reduction}: a loss is the mean of its samples, whatever the batch size")
        if reserved := RESERVED & metrics.keys():
            raise UserError(f"task.metrics.{reserved.pop()} is a name of thaw's own: name it otherwise")
        if weights is not None and "weight" not in accepted:
            raise UserError("loss takes no `weight`, so it cannot weigh classes: type data.balance=sampler")
        self._loss, self._metrics = loss, dict(metrics)
        # Torch's own mean divides by the sum of the weights in the batch: a sample would count differently in another.
        self._loss_options = {"reduction": "none"} if "reduction" in accepted else {}
        self.require_loss(torch.zeros(2, dtype=torch.long))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits (B, C) and a target: classes (B,) or probabilities (B, C); a scalar."""
        return self._losses(logits, target).mean()

    def require_loss(self, target: Tensor) -> None:
        """Raise UserError if the loss fails on a target of two samples: classes (2,) or probabilities (2, C)."""
        try:
            losses = self._losses(torch.zeros(2, self.num_classes), target)
        except Exception as error:  # whatever the user's own code raises
            kind = "classes (2,)" if target.ndim == 1 else f"class probabilities {tuple(target.shape)}, as mixing gives"
            raise UserError(
                f"loss fails on logits (2, {self.num_classes}) and {kind}: {type(error).__name__}: {error}"
            ) from error
        if losses.shape not in ((), (2,)):
            raise UserError(f"loss gives {tuple(losses.shape)} for 2 samples: return the loss of each, or their mean")

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        # float(), because they are bfloat16 in bf16-true.
        weight = {} if self.class_weights is None else {"weight": self.class_weights.float()}
        return self._loss(logits.float(), target, **weight, **self._loss_options)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C); each row sums to 1."""
        return (logits.float() / self.temperature).softmax(dim=1)

    def classes(self, target: Tensor) -> Tensor:
        """Return class indices (B,) of a target; of a mixed one (B, C), the class with the largest share."""
        return target if target.ndim == 1 else target.argmax(dim=1)

    def metrics(self) -> MetricCollection:
        """Return new metrics for one split."""
        metrics = {"loss": MeanMetric(), **{name: metric.clone() for name, metric in self._metrics.items()}}
        # Without groups: torchmetrics puts metrics together whose first results agree, for good.
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]

    def confusion(self) -> Metric:
        """Return a new confusion matrix, which counts (C, C), true class by predicted class."""
        return single_label_confusion(self.num_classes)


def _are_weights(values: Any, num_classes: int) -> bool:
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == num_classes
    return is_list and all(isinstance(value, int | float) and value >= 0 for value in values)
