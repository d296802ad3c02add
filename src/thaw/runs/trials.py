"""The trials of a sweep: what their folders say of them, and marks of those that came to no result."""

import json
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.arguments import for_shell
from thaw.errors import UserError
from thaw.manifest import naming_damage, read_json, replacing
from thaw.runs.files import (
    CHECKPOINTS,
    FAILURE_FILE,
    METRICS_FILE,
    OVERRIDES_FILE,
    PRUNED_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    is_run,
)

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


def typed_overrides(folder: Path) -> list[str]:
    """The overrides of a trial as they were typed or swept; none if it has not begun. UserError: they are damaged."""
    return read_json(folder / OVERRIDES_FILE, list, AGAIN)


def require_sweep(path: Path) -> Path:
    """Return `path` if it holds trials. Raises UserError that says what is there instead, and what to type."""
    if not path.exists():
        raise UserError(f"{path} does not exist: name the folder of a sweep, {_such_as(_sweeps_in(path.parent))}")
    if not path.is_dir():
        raise UserError(f"{path} is a file: name the folder of a sweep, {_such_as(_sweeps_in(path.parent))}")
    if is_run(path):
        is_trial = _holds_trials(path.parent)
        hint = f"type {for_shell('folder', path.parent)}" if is_trial else f"its page is {path / REPORT_FILE}"
        raise UserError(f"{path} is the folder of one run: {hint}")
    if (sweeps := _sweeps_in(path)) and not (path / SUMMARY_FILE).is_file():
        raise UserError(f"{path} is no sweep, but holds {len(sweeps)} of them: name one, {_such_as(sweeps)}")
    if not read_trials(path):
        raise UserError(f"{path} holds no trials: name the folder of a sweep, which python -m thaw.train -m ... made")
    return path


def _sweeps_in(folder: Path) -> list[Path]:
    return sorted(child for child in folder.glob("*") if _holds_trials(child))


def _holds_trials(folder: Path) -> bool:
    """Whether trials with numbers for names have begun in a folder."""
    return any(file.parent.name.isdigit() for file in folder.glob(f"[0-9]*/{OVERRIDES_FILE}"))


def _such_as(sweeps: list[Path]) -> str:
    return f"such as {sweeps[-1]}" if sweeps else "which python -m thaw.train -m ... made"


def read_trial(name: str, folder: Path) -> Trial:
    """Read the folder of a trial. What is damaged makes it a failed one."""
    overrides: dict[str, str] = {}
    try:
        overrides = dict(override.split("=", 1) for override in typed_overrides(folder) if "=" in override)
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


def is_repeat(key: str) -> bool:
    """Whether a key makes trials repeat the same choices, on another seed or another fold."""
    return key.rpartition(".")[2] in ("seed", "fold")


def _by_value(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
