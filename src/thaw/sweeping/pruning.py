"""Ends trials of a sweep that are behind the others at the same epoch of the same phase."""

import json
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.runs.files import FAILURE_FILE, METRICS_CSV, PHASES_FILE, read_rows
from thaw.runs.trials import record_pruned


class TrialPrunedError(UserError):
    """A trial was ended, because it was behind others. All processes of its run raise it together."""


class Place(NamedTuple):
    """Where in its plan a run is. Runs are compared where these are equal."""

    phase: int
    """Number of the phase, from 0."""
    trains: str
    """What trains in it."""
    epoch: int
    """Number of the epoch within the phase, from 0."""


class Pruning(Callback):
    """After an epoch, compares the best value since the phase began with the other trials' at the same place.

    A trial of another plan may be behind for a whole phase and win later, so values of different phases are never
    compared. Other trials are the folders with numbers for names beside that of the run; a run alone is never ended.

    Args:
        monitor: name of the metric.
        mode: max or min.
        warmup_epochs: epochs of each phase that are not judged.
        others: number of other trials that must have come to the same place.
    """

    def __init__(self, monitor: str, mode: str, warmup_epochs: int = 1, others: int = 4):
        self.monitor, self.mode, self.warmup_epochs, self.others = monitor, mode, warmup_epochs, others

    def required(self, values: Sequence[float]) -> float:
        """The value that a trial needs to go on, from those of the others, the best first."""
        raise NotImplementedError

    def judges(self, epoch: int) -> bool:
        """Whether trials are judged after this epoch of a phase, from 0."""
        return epoch >= self.warmup_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the trial. Raises TrialPrunedError if it is behind."""
        folder = Path(trainer.default_root_dir)
        if folder.name.isdigit() and self.monitor in trainer.callback_metrics:
            value = float(trainer.callback_metrics[self.monitor])
            reason = ranks().as_first(lambda: self._reason(folder, trainer.current_epoch, value))
            if reason:
                raise TrialPrunedError(reason)

    def _reason(self, folder: Path, epoch: int, value: float) -> str:
        """Why the trial is ended, which is recorded; empty if it is not."""
        place = places(folder)[epoch]
        if not self.judges(place.epoch):
            return ""
        before = values_in_phase(folder, place, self.monitor).values()
        own = self._best([*before, value])
        siblings = (other for other in folder.parent.iterdir() if other.name.isdigit() and other != folder)
        curves = [values_in_phase(other, place, self.monitor) for other in siblings]
        others = sorted(self._best(curve.values()) for curve in curves if place.epoch in curve)
        if len(others) < self.others:
            return ""
        required = self.required(others[::-1] if self.mode == "max" else others)
        if self._best([own, required]) == own:
            return ""
        reason = (
            f"{own:.4f} after epoch {place.epoch + 1} of phase {place.phase + 1}, where {len(others)} others ask for "
            f"{required:.4f}"
        )
        record_pruned(folder, self.monitor, self.mode, own, epoch + 1, reason)
        return reason

    def _best(self, values: Iterable[float]) -> float:
        return max(values) if self.mode == "max" else min(values)


class MedianPruning(Pruning):
    """Ends a trial that is behind the median of the others.

    Golovin et al. 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.1.
    """

    def required(self, values: Sequence[float]) -> float:
        """The median."""
        return median(values)


class HalvingPruning(Pruning):
    """After 1, `factor`, `factor`^2 ... epochs ends a trial that is not among the best 1/`factor` there.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning": asynchronous successive halving.
    """

    def __init__(self, monitor: str, mode: str, warmup_epochs: int = 0, others: int = 2, factor: int = 3):
        super().__init__(monitor, mode, warmup_epochs, others)
        self.factor = factor

    def judges(self, epoch: int) -> bool:
        """Whether `epoch` + 1 is a power of the factor, and not in the warmup."""
        return super().judges(epoch) and epoch + 1 in {self.factor**rung for rung in range(20)}

    def required(self, values: Sequence[float]) -> float:
        """The last of the best."""
        return values[max((len(values) + 1) // self.factor, 1) - 1]


def places(folder: Path) -> list[Place]:
    """The place of each epoch of a run."""
    phases: list[dict[str, Any]] = json.loads((folder / PHASES_FILE).read_text(encoding="utf-8"))
    return [
        Place(number, str(phase["trains"]), epoch)
        for number, phase in enumerate(phases)
        for epoch in range(phase["epochs"])
    ]


def values_in_phase(folder: Path, place: Place, monitor: str) -> dict[int, float]:
    """Values of a metric up to a place, by epoch within its phase.

    Empty for a trial that has no such phase, has failed, or cannot be read.
    """
    if (folder / FAILURE_FILE).exists():
        return {}
    try:
        rows = read_rows(folder / METRICS_CSV)
        logged = {int(row["epoch"]): float(row[monitor]) for row in rows if row.get(monitor) and row.get("epoch")}
        found = {places(folder)[epoch]: value for epoch, value in logged.items() if not isnan(value)}
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    return {p.epoch: value for p, value in found.items() if p[:2] == place[:2] and p.epoch <= place.epoch}
