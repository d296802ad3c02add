"""Metrics by split and by epoch, as rows of tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class EpochTable(NamedTuple):
    """Curves as numbers."""

    columns: list[str]
    """Names of metrics: category/split."""
    rows: list[tuple[int, list[float | None]]]
    """Epochs with the value of every column; None where it was not measured."""


def metric_rows(metrics: Mapping[str, float], splits: Iterable[str]) -> dict[str, list[float | None]]:
    """Values of metrics named category/split by category, in the order of `splits`; other names are left out."""
    splits = list(splits)
    categories = sorted({name.rpartition("/")[0] for name in metrics if name.rpartition("/")[2] in splits})
    return {category: [metrics.get(f"{category}/{split}") for split in splits] for category in categories}


def epoch_table(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> EpochTable:
    """Table of curves, given as pairs of epoch and value by category and split."""
    columns = {
        f"{category}/{split}": dict(points)
        for category, by_split in curves.items()
        for split, points in by_split.items()
    }
    epochs = sorted({epoch for points in columns.values() for epoch in points})
    return EpochTable(list(columns), [(epoch, [points.get(epoch) for points in columns.values()]) for epoch in epochs])
