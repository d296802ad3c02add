"""Metrics over an epoch, named category/split: the category is the chart, so that the splits share one.

B: batch size, C: classes, N: samples.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from rich.table import Table
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from thaw.console import as_text
from thaw.data.splits import SPLITS
from thaw.errors import UserError


def single_label_confusion(num_classes: int) -> MulticlassConfusionMatrix:
    """Return the metric that counts (C, C), true class by predicted class.

    `update` takes `preds`, class probabilities (N, C), and `target`, class indices (N,).
    """
    return MulticlassConfusionMatrix(num_classes, validate_args=False)


class EpochMetrics(nn.Module):
    """Metrics of one epoch, updated from many batches at once.

    An update takes as long for few samples as for many, and waits for the device. So results of batches are collected
    until `MOST_WAITING` predictions are there, or until `compute`.
    """

    MOST_WAITING = 2**24
    """Numbers, over all samples and classes: 64 MiB."""

    def __init__(self, metrics: MetricCollection):
        super().__init__()
        self.metrics = metrics
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, predictions: Tensor, target: Tensor, loss: Tensor) -> None:
        """Add a batch: predictions (B, C), targets (B,) or (B, C), the mean loss, a scalar."""
        # A copy of the target: it may lie in memory that a loader process shares, an open file each.
        self._waiting.append((predictions, target.clone(), loss))
        if len(self._waiting) * predictions.numel() >= self.MOST_WAITING:
            self._count()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics over all batches by name, and start again. Collective: call on every rank.

        Raises UserError if a metric is not one number.
        """
        self._count()
        values = self.metrics.compute()
        self.metrics.reset()
        for name, value in values.items():
            if torch.as_tensor(value).numel() != 1 and name.partition("/")[0] != "confusion":
                metric = f"task.metrics.{name.partition('/')[0]}"
                raise UserError(f"{metric} gives {value.numel()} numbers, not one: type +{metric}.average=macro")
        return values

    def saved(self) -> dict[str, Any]:
        """Return the state from which a run continues inside the epoch, on the CPU.

        Collected batches are kept as they are, because the rounding of a sum depends on the order of its terms.
        """
        counted = {name: dict(metric.metric_state) for name, metric in self.metrics.items(keep_base=True)}
        # On the CPU, so that tensors of other ranks do not get onto this rank's GPU.
        return apply_to_collection({"waiting": list(self._waiting), "counted": counted}, Tensor, Tensor.cpu)

    def restore(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Load a state that `saved` returned."""
        saved = apply_to_collection(dict(saved), Tensor, Tensor.to, device)
        self._waiting = [tuple(batch) for batch in saved["waiting"]]
        for name, metric in self.metrics.items(keep_base=True):
            for state, value in saved["counted"][name].items():
                setattr(metric, state, value)

    def _count(self) -> None:
        if not self._waiting:
            return
        predictions, targets, losses = zip(*self._waiting, strict=True)
        # Each metric takes the arguments that it knows.
        self.metrics.update(
            preds=torch.cat(predictions),
            target=torch.cat(targets),
            value=torch.stack(losses),
            weight=torch.tensor([len(target) for target in targets], device=losses[0].device),
        )
        self._waiting.clear()


def by_split(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the values of metrics named `category/split` by category, then by split; other names are left out."""
    categories: dict[str, dict[str, float]] = {}
    for name, value in sorted(metrics.items()):
        category, _, split = name.partition("/")
        if split in SPLITS:
            categories.setdefault(category, {})[split] = value
    return categories


def split_table(metrics: Mapping[str, float]) -> str:
    """Return a text table of metrics with a row for each category and a column for each split."""
    rows = by_split(metrics)
    splits = [split for split in SPLITS if any(split in row for row in rows.values())]
    table = Table("metric", *splits)
    for category, row in rows.items():
        table.add_row(category, *(f"{row[split]:.4f}" if split in row else "" for split in splits))
    return as_text(table)


def comparison_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Return a text table with a row for each metric and a column for each set of values, with all digits."""
    table = Table("metric", *columns)
    for name in sorted({name for values in columns.values() for name in values}):
        table.add_row(name, *(repr(values[name]) if name in values else "" for values in columns.values()))
    return as_text(table)
