"""Metrics over an epoch, named category/split: the category is the chart, so that the splits share one."""

from collections.abc import Mapping

from rich.table import Table
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from thaw.console import as_text


def single_label_metrics(num_classes: int) -> MetricCollection:
    """`update` takes preds, class probabilities (B, C); target, class indices (B,); value, the mean loss of the batch;
    weight, B. Macro: mean over classes, each weighing the same."""
    return MetricCollection(
        {
            "loss": MeanMetric(),
            "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "macro_precision": MulticlassPrecision(num_classes, average="macro", validate_args=False),
            "macro_recall": MulticlassRecall(num_classes, average="macro", validate_args=False),
            # Expected calibration error, 15 bins (Guo et al. 2017).
            "calibration_error": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1", validate_args=False),
        }
    )


def split_table(metrics: Mapping[str, float]) -> str:
    """A row a category, a column a split."""
    splits = [split for split in ("train", "val", "test") if any(name.endswith(f"/{split}") for name in metrics)]
    categories = sorted({name.split("/")[0] for name in metrics if name.split("/")[-1] in splits})
    table = Table("metric", *splits)
    for category in categories:
        values = [metrics.get(f"{category}/{split}") for split in splits]
        table.add_row(category, *("" if value is None else f"{value:.4f}" for value in values))
    return as_text(table)


def comparison_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A row a metric, a column each set of values, to the last digit."""
    table = Table("metric", *columns)
    for name in sorted({name for values in columns.values() for name in values}):
        table.add_row(name, *(repr(values[name]) if name in values else "" for values in columns.values()))
    return as_text(table)
