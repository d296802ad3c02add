"""A metric: a class derived from torchmetrics.Metric, whose states are summed over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric


class WorstRecall(Metric):
    """Recall of the class that is recognised worst. Classes without samples do not count."""

    higher_is_better = True
    right: Tensor
    seen: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.add_state("right", torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch: probabilities (N, C), classes (N,)."""
        self.seen += torch.bincount(target, minlength=len(self.seen))
        self.right += torch.bincount(target[preds.argmax(dim=1) == target], minlength=len(self.right))

    def compute(self) -> Tensor:
        """The least share of a class's samples that was recognised."""
        return torch.where(self.seen > 0, self.right / self.seen.clamp(min=1), 1.0).min()
