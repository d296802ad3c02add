"""Multi-label classification: each sample has any number of labels, also none.

B: batch size, N: samples, C: labels.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import Metric

from thaw.data.multi_labels import BETWEEN, NO_LABEL, MultiLabels
from thaw.tasks.outputs import MultiOutputs, Outputs
from thaw.tasks.single_label import columns_of, weights_of_classes
from thaw.tasks.task import NO_METRICS, Described, Task

LEAST_THRESHOLD = 0.01
"""Thresholds lie between this and 1 minus this."""


class MultiLabel(Task):
    """Task in which each sample has any of C labels: a decision of its own for each.

    A label is set where its probability is at least its threshold. Thresholds are 0.5 while the network trains; then
    they are those with the highest F1 on validation.

    Args:
        num_classes: C.
        loss: Function of logits (B, C) and targets 0 or 1 (B, C). Returns the loss of each sample and label, or their
            mean. With class weights it also gets `pos_weight` (C,).
        metrics: See `Task`; `target` is 0 or 1, (B, C); `preds` are in 0..1, and at least 0.5 where the label is set:
            probabilities, shifted so that the thresholds become 0.5.
        class_weights: C factors on the loss of labels that are set, in the order of the names; None: 1.

    Raises:
        UserError: If the loss fails, or `class_weights` does not have one for each label.
    """

    labels, outputs = MultiLabels, MultiOutputs
    many_losses = settles = True
    weighs_by = "pos_weight"
    thresholds: Tensor
    """Probabilities from which labels are set, (C,)."""

    def __init__(
        self,
        num_classes: int,
        loss: Callable[..., Tensor] = binary_cross_entropy_with_logits,
        metrics: Mapping[str, Metric] = NO_METRICS,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__(num_classes, loss, metrics, weights_of_classes(class_weights, num_classes))
        self.register_buffer("thresholds", torch.full((num_classes,), 0.5))
        self.require_loss(torch.zeros(2, num_classes), f"targets 0 or 1 (2, {num_classes})")

    @classmethod
    def metric_facts(cls, num_classes: int) -> dict[str, Any]:
        """Validation of arguments would wait for the device."""
        return {"task": "multilabel", "num_labels": num_classes, "validate_args": False}

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each label, (B, C)."""
        return outputs.float().sigmoid()

    def code(self, outputs: str) -> str:
        """Sigmoid."""
        return f"{outputs}.sigmoid()"

    def scored(self, outputs: Tensor) -> Tensor:
        """Probabilities, shifted so that the thresholds become 0.5: the order of samples stays as it is."""
        return (outputs.float() - self.thresholds.logit()).sigmoid()

    def metric_target(self, target: Tensor) -> Tensor:
        """The target as integers."""
        return target.long()

    def settle(self, outputs: Outputs) -> dict[str, Tensor]:
        """The threshold of each label."""
        assert isinstance(outputs, MultiOutputs)
        found = best_thresholds(outputs.probabilities, outputs.targets)
        return {"thresholds": torch.tensor(found, dtype=torch.float)}

    def describe(self, predictions: Sequence[float], names: Sequence[str], top_k: int) -> Described:
        """The labels that are set, and all probabilities."""
        by_label = dict(zip(names, predictions, strict=True))
        chosen = [name for name, least in zip(names, self.thresholds.tolist(), strict=True) if by_label[name] >= least]
        shown = {"labels": BETWEEN.join(chosen), **columns_of(by_label)}
        return Described(shown, {"labels": chosen, "probabilities": by_label}, chosen or [NO_LABEL])

    def agreement(self, predictions: Tensor, expected: Tensor) -> tuple[float, float]:
        """The share of samples with the same labels, and the largest difference of a probability.

        A label whose probability is at its threshold, but for rounding, is no disagreement.
        """
        difference = predictions - expected
        thresholds = self.thresholds.cpu()
        is_close = (expected - thresholds).abs() <= torch.finfo(torch.float).eps * 100
        same = ((predictions >= thresholds) == (expected >= thresholds)) | is_close
        return same.all(dim=1).float().mean().item(), difference.abs().max().item()

    def averaged(self, tasks: Sequence[Task]) -> Task:
        """With the mean of the thresholds."""
        mean = deepcopy(self)
        mean.thresholds = torch.stack([task.thresholds for task in tasks]).mean(dim=0)  # type: ignore[misc]
        return mean

    def decision(self) -> dict[str, Any]:
        """The thresholds."""
        return {"thresholds": self.thresholds.tolist()}


def best_thresholds(probabilities: NDArray[np.floating], targets: NDArray[np.integer]) -> list[float]:
    """The threshold of each label with the highest F1, (C,); 0.5 for a label that no sample has, or all have.

    Between two samples it lies in the middle, so that it does not depend on the last digit of either.

    Args:
        probabilities: of samples that the network was not trained on, (N, C).
        targets: 0 or 1, (N, C).
    """
    found = []
    for own, is_set in zip(probabilities.T, targets.T, strict=True):
        if is_set.min(initial=1) == is_set.max(initial=0):
            found.append(0.5)
            continue
        precision, recall, at = precision_recall_curve(is_set, own)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        below = at[best - 1] if best else 0.0
        found.append(float(np.clip((below + at[best]) / 2, LEAST_THRESHOLD, 1 - LEAST_THRESHOLD)))
    return found
