"""Single-label classification: its loss, probabilities and metrics. The training module never tests its task's kind.

B: batch size, C: classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection

from thaw.errors import UserError
from thaw.tasks.metrics import single_label_confusion, single_label_metrics


class SingleLabel(nn.Module):
    """Task in which each sample belongs to exactly one of C classes.

    Args:
        num_classes: C.
        label_smoothing: Share of the target that is spread over all classes, from 0 to below 1.
        class_weights: C factors on the loss, in the order of the class names; None weighs all classes alike.

    Raises:
        UserError: If a number is out of range or `class_weights` does not have one for each class.
    """

    class_weights: Tensor | None

    def __init__(self, num_classes: int, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing must be at least 0 and below 1, but is {label_smoothing}")
        if class_weights is not None and (isinstance(class_weights, str) or len(class_weights) != num_classes):
            raise UserError(
                f"task.class_weights must be null or a list of {num_classes} numbers, one for each class, but is "
                f"{class_weights}. data.balance=loss computes them from the data."
            )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float)
        # Not persistent: they come from the configuration, not from a checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (B, C) and a target: classes (B,) or probabilities (B, C); a scalar.

        With class weights it is still the sum over the batch divided by B. Torch's own mean divides by the sum of the
        weights in the batch, so that a sample would count differently in another batch.
        """
        weights = None if self.class_weights is None else self.class_weights.float()  # bfloat16 in bf16-true
        losses = cross_entropy(logits.float(), target, weights, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C); each row sums to 1."""
        return logits.float().softmax(dim=1)

    def classes(self, target: Tensor) -> Tensor:
        """Return class indices (B,) of a target; of a mixed one (B, C), the class with the largest share."""
        return target if target.ndim == 1 else target.argmax(dim=1)

    def metrics(self) -> MetricCollection:
        """Return new metrics for one split, one number each."""
        return single_label_metrics(self.num_classes)

    def confusion(self) -> Metric:
        """Return a new confusion matrix, which counts (C, C), true class by predicted class."""
        return single_label_confusion(self.num_classes)
