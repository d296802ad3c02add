"""What was logged while a run trained, by epoch and by phase, from the content of metrics.csv and phases.json."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from thaw.reporting.report import PhaseRow

Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Pairs of epoch and value by category, then by split."""


def curves_of(rows: Sequence[Mapping[str, str]]) -> Curves:
    """Metrics of train and val by epoch, from the rows of metrics.csv. A value that was logged twice counts last."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            category, _, split = name.partition("/")
            if value and row.get("epoch") and split in ("train", "val"):
                values.setdefault((category, split), {})[int(row["epoch"])] = float(value)
    curves: Curves = {}
    for (category, split), by_epoch in values.items():
        curves.setdefault(category, {})[split] = sorted(by_epoch.items())
    return curves


def rates_of(rows: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[int, float]]]:
    """Pairs of step and learning rate by stage, from what LearningRateMonitor wrote into the rows of metrics.csv."""
    rates: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("lr-") and value:
                _, stage, *_ = [*name.split("/"), name]  # lr-AdamW/<stage>/decay
                rates.setdefault(stage, {})[int(row["step"])] = float(value)
    return {stage: sorted(by_step.items()) for stage, by_step in rates.items()}


def phase_results(
    phases: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, str]], monitor: str, mode: str
) -> list[PhaseRow]:
    """What each phase that has begun trained, gained and cost.

    Args:
        phases: content of phases.json.
        rows: rows of metrics.csv.
        monitor: name of the monitored metric.
        mode: max or min.
    """
    best = max if mode == "max" else min
    starts = np.cumsum([0, *(phase["epochs"] for phase in phases)]).tolist()
    columns = ("speed/epoch_seconds", "speed/cached", "memory/gpu_gb", monitor)
    epochs = {name: {int(row["epoch"]): float(row[name]) for row in rows if row.get(name)} for name in columns}
    seen = {epoch for values in epochs.values() for epoch in values}
    found = []
    for phase, (start, end) in zip(phases, pairwise(starts), strict=True):
        if not any(start <= epoch for epoch in seen):
            break
        here = {name: [v for epoch, v in values.items() if start <= epoch < end] for name, values in epochs.items()}
        until = {name: [value for epoch, value in epochs[monitor].items() if epoch < name] for name in (start, end)}
        found.append(
            PhaseRow(
                first_epoch=start,
                last_epoch=min(end - 1, max(seen)),
                trains=phase["trains"],
                parameters=phase["parameters"],
                lr_scale=phase["lr_scale"],
                best_before=best(until[start], default=None),
                best_after=best(until[end], default=None),
                seconds=sum(here["speed/epoch_seconds"]) or None,
                peak_memory_gb=max(here["memory/gpu_gb"], default=None),
                cached=float(np.mean(here["speed/cached"])) if here["speed/cached"] else None,
            )
        )
    return found
