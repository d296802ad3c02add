"""What is asked of the network: loss, activation and metrics. The classifier never tests which kind it has."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection

from thaw.errors import UserError
from thaw.tasks.metrics import single_label_confusion, single_label_metrics


class SingleLabel(nn.Module):
    """Each sample belongs to exactly one of C classes.

    `class_weights`: C factors on the loss, in the order of the class names. Raises UserError where they do not fit.
    """

    class_weights: Tensor | None

    def __init__(self, num_classes: int, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing is from 0 to below 1, not {label_smoothing}")
        if class_weights is not None and (isinstance(class_weights, str) or len(class_weights) != num_classes):
            raise UserError(
                f"task.class_weights is null or a list of {num_classes} numbers, one a class, not {class_weights}. "
                f"data.balance=loss takes them from the data."
            )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float)
        # Not persistent: made from the configuration, so no part of a checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the batch: (B, C), (B,) or class probabilities (B, C) -> scalar.

        With class weights it is still the sum over the batch by B: torch's own mean divides by the weights that happen
        to be in a batch, so that the same sample would count differently in another batch.
        """
        weights = None if self.class_weights is None else self.class_weights.float()  # in bf16-true it is not
        losses = cross_entropy(logits.float(), target, weights, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) -> (B, C), rows sum to 1."""
        return logits.float().softmax(dim=1)

    def classes(self, target: Tensor) -> Tensor:
        """(B,) class indices, also of mixed targets (B, C): the class with the larger part."""
        return target if target.ndim == 1 else target.argmax(dim=1)

    def metrics(self) -> MetricCollection:
        return single_label_metrics(self.num_classes)

    def confusion(self) -> Metric:
        """Counts (C, C): apart from `metrics`, which are one number each."""
        return single_label_confusion(self.num_classes)
