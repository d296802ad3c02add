"""What is asked of the network: loss, activation and metrics. The classifier never tests which kind it has."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thaw.metrics import single_label_metrics


class SingleLabel(nn.Module):
    """Each sample belongs to exactly one of C classes.

    `class_weights`: None; "balanced" (each class weighs the same in sum: n / (C x its count)); or C numbers, in the
    order of the class names. Raises ValueError where that does not fit the classes.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int],
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing is from 0 to below 1, not {label_smoothing}")
        self.num_classes = len(class_counts)
        self.label_smoothing = label_smoothing
        # Not persistent: made from the configuration, so no part of a checkpoint.
        self.register_buffer("class_weights", _class_weights(class_weights, class_counts), persistent=False)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the batch: (B, C), (B,) -> scalar."""
        return cross_entropy(logits.float(), target, self.class_weights, label_smoothing=self.label_smoothing)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) -> (B, C), rows sum to 1."""
        return logits.float().softmax(dim=1)

    def metrics(self) -> MetricCollection:
        return single_label_metrics(self.num_classes)


def _class_weights(choice: str | Sequence[float] | None, counts: Sequence[int]) -> Tensor | None:
    if choice is None:
        return None
    if choice == "balanced":
        if 0 in counts:
            raise ValueError(f"task.class_weights=balanced: class number {counts.index(0)} has no training sample")
        return sum(counts) / (len(counts) * torch.tensor(counts, dtype=torch.float))
    if isinstance(choice, str):
        raise ValueError(f"task.class_weights is null, balanced or a list of {len(counts)} numbers, not '{choice}'")
    if len(choice) != len(counts):
        raise ValueError(f"task.class_weights has {len(choice)} numbers, but there are {len(counts)} classes")
    return torch.tensor(choice, dtype=torch.float)
