"""The trials of a sweep: what their folders say of them, and marks of those that came to no result."""

import json
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.errors import UserError
from thaw.manifest import naming_damage, read_json, replacing
from thaw.runs.files import CHECKPOINTS, FAILURE_FILE, METRICS_FILE, OVERRIDES_FILE, PRUNED_FILE

RESULTS = ("monitor", "mode", "best", "epoch", "seconds", "metrics")
"""What is shown of the content of metrics.json."""
AGAIN = "Delete the trial's folder and run it again"
FINISHED, PRUNED, FAILED, UNFINISHED = "ok", "pruned", "failed", "unfinished"
"""States of a trial."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, as its folder describes it."""

    name: str  # of its folder in the sweep's: 0, 1 ... unless hydra.sweep.subdir says otherwise
    folder: Path
    overrides: dict[str, str]  # overrides that were typed or swept, value by key
    state: str
    results: dict[str, Any] | None = None  # content of metrics.json; None if the trial has not finished
    pruned: dict[str, Any] | None = None  # content of pruned.json, see `record_pruned`
    message: str = ""  # one line: why it failed or was pruned

    @property
    def status(self) -> str:
        """The state for people, with the reason."""
        return f"{self.state}: {self.message}" if self.message else self.state

    def choices(self, keys: Iterable[str]) -> dict[str, str]:
        """The trial's overrides of these keys; keys that it does not override are left out."""
        return {key: self.overrides[key] for key in keys if key in self.overrides}


def record_failure(folder: Path, overrides: list[str], message: str) -> None:
    """Write into a trial's folder that the trial failed, and print it. Files of a finished trial stay as they are."""
    if not (folder / METRICS_FILE).exists():
        with replacing(folder / OVERRIDES_FILE) as temporary:
            temporary.write_text(json.dumps(overrides), encoding="utf-8", errors="surrogateescape")
    (folder / FAILURE_FILE).write_text(message + "\n", encoding="utf-8", errors="replace")
    print(f"trial {folder.name} failed: {message}", flush=True)


def record_pruned(folder: Path, monitor: str, mode: str, value: float, epoch: int, message: str) -> None:
    """Write into a trial's folder that it was ended, because it was behind other trials.

    Args:
        folder: of the trial.
        monitor: name of the metric that was compared.
        mode: max or min.
        value: of the metric, the best of the trial's phase.
        epoch: number of epochs that were trained.
        message: the reason, one line.
    """
    content = {"monitor": monitor, "mode": mode, "value": value, "epoch": epoch, "message": message}
    with replacing(folder / PRUNED_FILE) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def trial_line(folder: Path, metric: str, typed: Collection[str] = ()) -> str:
    """One line about a finished trial: its folder's name, its metric, how long it took, and its overrides.

    `typed`: overrides that all trials have, which are left out.
    """
    trial = read_trial(folder.name, folder)
    assert trial.results is not None
    choices = " ".join(f"{key}={value}" for key, value in trial.overrides.items() if f"{key}={value}" not in typed)
    value = trial.results["metrics"].get(metric)  # fast_dev_run monitors nothing
    measured = "" if value is None else f"  {metric} {value:.4f}"
    return f"trial {trial.name}{measured}  {trial.results['seconds']:.0f} s  {choices}"


def read_trials(sweep: Path) -> list[Trial]:
    """Read every trial of a sweep, in the order of their names, with numbers in them by value."""
    numbered = (folder for folder in sweep.iterdir() if folder.name.isdigit())  # also one that holds nothing yet
    folders = {*numbered, *(file.parent for file in sweep.rglob(OVERRIDES_FILE))}
    named = {folder.relative_to(sweep).as_posix(): folder for folder in folders}
    return [read_trial(name, named[name]) for name in sorted(named, key=_by_value)]


def read_trial(name: str, folder: Path) -> Trial:
    """Read the folder of a trial. What is damaged makes it a failed one."""
    overrides: dict[str, str] = {}
    try:
        typed = read_json(folder / OVERRIDES_FILE, list, AGAIN)
        overrides = dict(override.split("=", 1) for override in typed if "=" in override)
        if (folder / FAILURE_FILE).exists():
            text = (folder / FAILURE_FILE).read_text(encoding="utf-8").strip()
            return Trial(name, folder, overrides, FAILED, message=(text or "no reason given").splitlines()[0])
        if (folder / METRICS_FILE).exists():
            content = read_json(folder / METRICS_FILE, dict, AGAIN)
            with naming_damage(folder / METRICS_FILE):
                return Trial(name, folder, overrides, FINISHED, {key: content[key] for key in RESULTS})
        if (folder / PRUNED_FILE).exists():
            pruned = read_json(folder / PRUNED_FILE, dict, AGAIN)
            with naming_damage(folder / PRUNED_FILE):
                return Trial(name, folder, overrides, PRUNED, pruned=pruned, message=str(pruned["message"]))
    except UserError as error:
        return Trial(name, folder, overrides, FAILED, message=str(error).splitlines()[0])
    return Trial(name, folder, overrides, UNFINISHED)


def holds_numbered_trials(sweep: Path) -> bool:
    """Whether a numbered trial in this folder, which need not exist, has come to a checkpoint."""
    return any(any(sweep.glob(f"[0-9]*/{file}")) for file in (METRICS_FILE, f"{CHECKPOINTS}/*.ckpt"))


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that have a value of the monitored metric, the best first; among equals in their order."""
    finished = [(t, t.results) for t in trials if t.results and _is_number(t.results["best"])]
    sign = -1 if finished and finished[0][1]["mode"] == "max" else 1
    return [trial for trial, results in sorted(finished, key=lambda pair: sign * pair[1]["best"])]


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)  # fast_dev_run monitors nothing


def best(trials: Iterable[Trial]) -> Trial | None:
    """Return the trial with the best monitored metric, the first among equals; None if none has a value."""
    return next(iter(ranked(trials)), None)


def varied(trials: Iterable[Trial]) -> list[str]:
    """Keys of overrides with more than one value among the trials, in the order typed."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.overrides.items():
            values.setdefault(key, set()).add(value)
    return [key for key, distinct in values.items() if len(distinct) > 1]


def _by_value(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
