"""The trials of a sweep, each in its own numbered folder, and the tables that compare them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.sweeping.folds import read_folds, recall_table

FAILURE_FILE, METRICS_FILE, OVERRIDES_FILE = "failure.txt", "metrics.json", "overrides.json"


@dataclass(frozen=True)
class Trial:
    number: int
    overrides: tuple[str, ...]
    """What was typed for it, `key=value`."""
    results: dict[str, Any] | None
    """What `metrics.json` holds; None where it did not come to its end."""
    failure: str | None = None
    """Why not."""


def record_failure(folder: Path, overrides: list[str], message: str) -> None:
    if not (folder / METRICS_FILE).exists():  # an earlier sweep in the same place: its trial stays as it is
        (folder / OVERRIDES_FILE).write_text(json.dumps(overrides))
        (folder / FAILURE_FILE).write_text(message + "\n")
    print(f"trial {folder.name} failed: {message}", flush=True)


def read_trials(sweep: Path) -> list[Trial]:
    """Every numbered folder of a sweep, in order."""
    folders = sorted((p for p in sweep.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    return [_read(folder) for folder in folders]


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best monitored metric, the first among equals; None where all failed."""
    finished = [trial for trial in trials if trial.results and trial.results["best"] is not None]
    if not finished:
        return None
    sign = 1 if finished[0].results["mode"] == "max" else -1  # type: ignore[index]
    return max(finished, key=lambda trial: sign * trial.results["best"])  # type: ignore[index]


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Header and one row a trial: number, what varied, status, best metric, test metrics, seconds."""
    keys = _varied(trials)
    monitor = next((trial.results["monitor"] for trial in trials if trial.results), "best")
    tested = sorted({name for t in trials if t.results for name in t.results["metrics"] if name.endswith("/test")})
    rows = [["trial", *keys, "status", f"best {monitor}", "epoch", *tested, "seconds"]]
    for trial in trials:
        values = _values(trial)
        row = [str(trial.number), *(values.get(key, "") for key in keys)]
        if trial.results is None:
            row += [f"failed: {(trial.failure or 'no result').splitlines()[0]}", "", "", *("" for _ in tested), ""]
        else:
            results = trial.results
            metrics = [f"{results['metrics'].get(name, float('nan')):.4f}" for name in tested]
            best_value = "" if results["best"] is None else f"{results['best']:.4f}"  # fast_dev_run keeps no best
            row += ["ok", best_value, str(results["epoch"]), *metrics, f"{results['seconds']:.1f}"]
        rows.append(row)
    return rows


def write_summary(sweep: Path) -> str:
    """Write `summary.csv` and `summary.md` into the sweep's folder; gives the Markdown.

    Where the sweep goes over folds, the Markdown also has the recall of each class.
    """
    trials = read_trials(sweep)
    rows = table(trials)
    with (sweep / "summary.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    tables = [rows, recall_table(read_folds(_varied_overrides(sweep, trials)))]
    text = "\n\n".join([*(_markdown(rows) for rows in tables if rows), _verdict(trials)]) + "\n"
    (sweep / "summary.md").write_text(text, encoding="utf-8")
    return text


def _read(folder: Path) -> Trial:
    def content(name: str) -> Any:
        file = folder / name
        return json.loads(file.read_text()) if file.exists() else None

    failure = folder / FAILURE_FILE
    return Trial(
        int(folder.name),
        tuple(content(OVERRIDES_FILE) or ()),
        None if failure.exists() else content(METRICS_FILE),
        failure.read_text().strip() if failure.exists() else None,
    )


def _values(trial: Trial) -> dict[str, str]:
    return dict(override.split("=", 1) for override in trial.overrides if "=" in override)


def _varied(trials: Sequence[Trial]) -> list[str]:
    """The keys that do not have one value throughout, in the order typed."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in _values(trial).items():
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1]


def _varied_overrides(sweep: Path, trials: Sequence[Trial]) -> dict[Path, dict[str, str]]:
    """By folder of the finished trials, the overrides that do not have one value throughout them."""
    finished = [trial for trial in trials if trial.results]
    keys = _varied(finished)
    found = {}
    for trial in finished:
        values = _values(trial)
        found[sweep / str(trial.number)] = {key: values[key] for key in keys if key in values}
    return found


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _verdict(trials: Sequence[Trial]) -> str:
    failed = sum(trial.results is None for trial in trials)
    winner = best(trials)
    if winner is None or winner.results is None:
        return f"all {failed} trials failed"
    text = f"best: trial {winner.number}, {winner.results['monitor']} = {winner.results['best']:.4f}"
    values = _values(winner)
    if choice := " ".join(f"{key}={values[key]}" for key in _varied(trials) if key in values):
        text += f" ({choice})"
    return text + (f"; {failed} of {len(trials)} trials failed" if failed else "")
