"""Reads the trials of a sweep, each in a folder of its own, and writes the tables that compare them."""

import csv
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.console import as_text
from thaw.errors import UserError
from thaw.manifest import naming_damage, read_json, replacing
from thaw.runs.files import CHECKPOINTS, FAILURE_FILE, METRICS_FILE, OVERRIDES_FILE
from thaw.sweeping.folds import read_folds, recall_table

RESULTS = ("monitor", "mode", "best", "epoch", "seconds", "metrics")
"""What is shown of the content of metrics.json."""
AGAIN = "Delete the trial's folder and run it again"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, as its folder describes it."""

    name: str  # of its folder in the sweep's: 0, 1 ... unless hydra.sweep.subdir says otherwise
    folder: Path
    overrides: dict[str, str]  # overrides that were typed or swept, value by key
    results: dict[str, Any] | None  # content of metrics.json; None if the trial failed
    failure: str  # why it failed, one line; meaningless if it did not

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


def trial_line(folder: Path, metric: str, typed: Collection[str] = ()) -> str:
    """One line about a finished trial: its folder's name, its metric, how long it took, and its overrides.

    `typed`: overrides that all trials have, which are left out.
    """
    trial = _read(folder.name, folder)
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
    return [_read(name, named[name]) for name in sorted(named, key=_by_value)]


def holds_numbered_trials(sweep: Path) -> bool:
    """Whether a numbered trial in this folder, which need not exist, has come to a checkpoint."""
    return any(any(sweep.glob(f"[0-9]*/{file}")) for file in (METRICS_FILE, f"{CHECKPOINTS}/*.ckpt"))


def best(trials: Iterable[Trial]) -> Trial | None:
    """Return the trial with the best monitored metric, the first among equals; None if none has a value."""
    finished = [(trial, trial.results) for trial in trials if trial.results and trial.results["best"] is not None]
    if not finished:
        return None
    choose = max if finished[0][1]["mode"] == "max" else min
    return choose(finished, key=lambda pair: pair[1]["best"])[0]


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Build the header and one row per trial: name, what varied, status, best and test metrics, seconds."""
    keys = varied(trials)
    all_results = [trial.results for trial in trials if trial.results]
    monitor = all_results[0]["monitor"] if all_results else "best"
    tested = sorted({name for results in all_results for name in results["metrics"] if name.endswith("/test")})
    rows = [["trial", *keys, "status", f"best {monitor}", "epoch", *tested, "seconds"]]
    for trial in trials:
        row = [trial.name, *(trial.overrides.get(key, "") for key in keys)]
        if (results := trial.results) is None:
            row += [f"failed: {trial.failure}", "", "", *("" for _ in tested), ""]
        else:
            metrics = [f"{results['metrics'].get(name, float('nan')):.4f}" for name in tested]
            best_value = "" if results["best"] is None else f"{results['best']:.4f}"  # fast_dev_run monitors nothing
            epoch = "" if results["epoch"] is None else str(results["epoch"] + 1)  # shown from 1
            row += ["ok", best_value, epoch, *metrics, f"{results['seconds']:.1f}"]
        rows.append(row)
    return rows


def write_summary(sweep: Path) -> str:
    """Write `summary.csv` and `summary.md` into the sweep's folder; return the Markdown.

    If the sweep goes over folds, the Markdown also has a table of the recall of each class.
    """
    trials = read_trials(sweep)
    rows = table(trials)
    text = "\n\n".join([*(_markdown(rows) for rows in (rows, _recalls(trials)) if rows), _verdict(trials)]) + "\n"
    (sweep / "summary.md").write_text(text, encoding="utf-8")
    with (sweep / "summary.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return text


def shown_summary(trials: Sequence[Trial]) -> str:
    """The same for a terminal: of the test metrics only the monitored one."""
    rows = table(trials)
    monitored = next((trial.results["monitor"].partition("/")[0] for trial in trials if trial.results), "")
    shown = [i for i, name in enumerate(rows[0]) if not name.endswith("/test") or name == f"{monitored}/test"]
    tables = ([[row[i] for i in shown] for row in rows], _recalls(trials))
    return "".join([*(_drawn(rows) for rows in tables if rows), _verdict(trials)])


def _recalls(trials: Sequence[Trial]) -> list[list[str]]:
    finished = [trial for trial in trials if trial.results]
    keys = varied(finished)
    return recall_table(read_folds({trial.folder: trial.choices(keys) for trial in finished}))


def _by_value(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read(name: str, folder: Path) -> Trial:
    file, typed, results = folder / FAILURE_FILE, [], None
    failure = file.read_text(encoding="utf-8") if file.exists() else ""
    try:
        typed = read_json(folder / OVERRIDES_FILE, list, AGAIN)
        if not failure and (content := read_json(folder / METRICS_FILE, dict, AGAIN)):
            with naming_damage(folder / METRICS_FILE):
                results = {key: content[key] for key in RESULTS}
    except UserError as error:
        failure = str(error)
    overrides = dict(override.split("=", 1) for override in typed if "=" in override)
    return Trial(name, folder, overrides, results, (failure.strip() or "no result").splitlines()[0])


def varied(trials: Iterable[Trial]) -> list[str]:
    """Keys of overrides with more than one value among the trials, in the order typed."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.overrides.items():
            values.setdefault(key, set()).add(value)
    return [key for key, distinct in values.items() if len(distinct) > 1]


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _drawn(rows: list[list[str]]) -> str:
    from rich.markup import escape  # here, because a wrong command need not wait for it
    from rich.table import Table

    table = Table(*map(escape, rows[0]))
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    return as_text(table)


def _verdict(trials: Sequence[Trial]) -> str:
    if not trials:
        return "no trial has left anything here"
    failed = sum(trial.results is None for trial in trials)
    winner = best(trials)
    if winner is None or winner.results is None:
        return f"all {failed} trials failed"
    text = f"best: trial {winner.name}, {winner.results['monitor']} = {winner.results['best']:.4f}"
    if choices := winner.choices(varied(trials)):
        text += f" ({' '.join(f'{key}={value}' for key, value in choices.items())})"
    same = [t.name for t in trials if t is not winner and t.results and t.results["best"] == winner.results["best"]]
    text += f", equalled by trial {', '.join(same)}" if same else ""
    return text + (f"; {failed} of {len(trials)} trials failed" if failed else "")
