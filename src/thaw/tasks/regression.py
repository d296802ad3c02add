"""Regression: each sample has one or several numbers.

B: batch size, T: quantities.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import Metric
from torchmetrics.regression import SpearmanCorrCoef

from thaw.data.number_labels import NumberLabels
from thaw.tasks.outputs import NumberOutputs
from thaw.tasks.task import NO_METRICS, Described, Task

SAME = 0.01
"""Two predictions are the same if they differ by at most so many standard deviations."""


class Regression(Task):
    """Task in which each sample has T numbers.

    The network gives standardised numbers, so that rates and losses do not depend on the unit; predictions and metrics
    are in the user's unit.

    Args:
        num_classes: T.
        loss: Function of standardised outputs and targets, both (B, T). Returns the loss of each number, or their mean.
        metrics: See `Task`; `preds` and `target` are (B, T), in the user's unit.
        mean: mean of each quantity over the training samples, (T,); None: 0, until a run's own is loaded.
        std: its standard deviation, (T,); None: 1.

    Raises:
        UserError: If the loss fails.
    """

    labels, outputs, result = NumberLabels, NumberOutputs, "values"
    many_losses = True
    mean: Tensor
    std: Tensor
    spread: Tensor
    """Standard deviation of the training samples, by which differences are measured."""

    def __init__(
        self,
        num_classes: int,
        loss: Callable[..., Tensor] = mse_loss,
        metrics: Mapping[str, Metric] = NO_METRICS,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(num_classes, loss, metrics)
        self.register_buffer("mean", torch.zeros(num_classes) if mean is None else torch.tensor(mean).float())
        self.register_buffer("std", torch.ones(num_classes) if std is None else torch.tensor(std).float())
        self.register_buffer("spread", self.std.clone(), persistent=False)
        self.require_loss(torch.zeros(2, num_classes), f"numbers (2, {num_classes})")

    @classmethod
    def metric_facts(cls, num_classes: int) -> dict[str, Any]:
        """The number of quantities, for metrics that compute one number for each."""
        return {"quantities": num_classes}

    def encoded(self, target: Tensor) -> Tensor:
        """Standardised numbers."""
        return (target.float() - self.mean) / self.std

    def predictions(self, outputs: Tensor) -> Tensor:
        """Numbers in the user's unit, (B, T)."""
        return outputs.float() * self.std + self.mean

    def code(self, outputs: str) -> str:
        """Scaled; by nothing, where the last layer does it."""
        return f"({outputs}) * torch.tensor({self.std.tolist()}) + torch.tensor({self.mean.tolist()})"

    def kept(self, outputs: Tensor) -> Tensor:
        """The predictions."""
        return self.predictions(outputs)

    def describe(self, predictions: Sequence[float], names: Sequence[str], top_k: int) -> Described:
        """The number of each quantity."""
        by_name = dict(zip(names, predictions, strict=True))
        return Described(by_name, {"values": by_name}, [])

    def agreement(self, predictions: Tensor, expected: Tensor) -> tuple[float, float]:
        """The share of samples whose numbers are the `SAME`, and the largest difference in standard deviations."""
        difference = ((predictions - expected) / self.spread.cpu()).abs()
        return (difference <= SAME).all(dim=1).float().mean().item(), difference.max().item()

    def folded_into(self, layer: nn.Linear) -> Task:
        """Let the last layer itself give numbers in the user's unit."""
        with torch.no_grad():
            layer.weight.mul_(self.std[:, None])
            layer.bias.mul_(self.std).add_(self.mean)
        left = deepcopy(self)
        left.spread, left.mean, left.std = self.std, torch.zeros_like(self.mean), torch.ones_like(self.std)
        return left


class MeanSpearman(SpearmanCorrCoef):
    """Spearman's rank correlation, the mean over `quantities`; `preds` and `target` are (N, T)."""

    def __init__(self, quantities: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it keeps all numbers, which are few beside the images and texts
            super().__init__(num_outputs=quantities)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        super().update(preds.squeeze(1), target.squeeze(1)) if preds.shape[1] == 1 else super().update(preds, target)

    def compute(self) -> Tensor:
        """The mean."""
        return super().compute().mean()
