"""Names of the files in a run folder, for whoever reads one without PyTorch (`--help`, tables of trials)."""

import csv
import json
import os
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from thaw.errors import UserError

CHECKPOINTS = "checkpoints"
LOCK_FILE = ".lock"
CONFIG_FILE, OVERRIDES_FILE, LOG_FILE, FAILURE_FILE = "config.yaml", "overrides.json", "train.log", "failure.txt"
DATA_FILE, SAMPLES_FILE, CLASS_NAMES_FILE = "data.txt", "samples.csv", "class_names.json"
INPUT_SPEC_FILE, BACKBONE_FILE = "input_spec.json", "backbone.json"
WEIGHTS_FILE, MODULE_FILE, PROBE_FILE = "weights.safetensors", "module.safetensors", "probe.safetensors"
ADAPTER_FOLDER, HEAD_FILE = "adapter", "head.safetensors"
METRICS_FILE, METRICS_CSV, CONFUSION_FILE = "metrics.json", "metrics.csv", "confusion_test.csv"
PRUNED_FILE, SOUP_FILE = "pruned.json", "soup.json"
CALIBRATION_FILE, ENVIRONMENT_FILE, PHASES_FILE = "calibration.json", "environment.json", "phases.json"
OUTPUTS_FILE, BASELINES_FILE = "outputs_{split}.npz", "baselines.json"
REPORT_FILE, SUMMARY_FILE, SWEEP_PAGE = "report.html", "summary.md", "sweep.html"
LINK_OF_WANDB = "wandb/*/logs/debug-core.log"
"""The only link that may lead out of a run folder: W&B makes it to a log of its own, and thaw does not follow it."""


def read_metrics(folder: Path) -> dict[str, float]:
    """Final metrics of the run in `folder` by name; empty if the run has not finished."""
    file = folder / METRICS_FILE
    return json.loads(file.read_text(encoding="utf-8"))["metrics"] if file.exists() else {}


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column, without a last one that was cut off; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        lines = opened.read().split("\n")[:-1]
    return list(csv.DictReader(lines))


def strange_files(folder: Path) -> list[Path]:
    """What a folder holds, at any depth, besides files and folders: links that lead out, pipes, sockets, devices."""
    root = folder.resolve()
    files = [Path(path, name) for path, folders, names in os.walk(root) for name in (*folders, *names)]
    return sorted(file for file in files if not _is_inside(file, root))


def _is_inside(file: Path, root: Path) -> bool:
    mode = file.lstat().st_mode
    if S_ISLNK(mode):
        return Path(os.path.realpath(file)).is_relative_to(root) or file.relative_to(root).match(LINK_OF_WANDB)
    return S_ISREG(mode) or S_ISDIR(mode)


def is_run(path: str | Path) -> bool:
    """Whether there is a run folder at `path`."""
    return Path(path, CONFIG_FILE).is_file()


def require_run(path: Path) -> Path:
    """Return `path` if it is a run folder. Raises UserError that says what is there instead, and what to name."""
    if (path / CONFIG_FILE).is_file():
        return path
    above = next((folder for folder in path.parents if (folder / CONFIG_FILE).is_file()), None)
    if above is not None:
        raise UserError(f"{path} is in a run folder, or was: name the run folder, {above}")
    if not path.exists():
        others = _runs_in(path.parent)
        hint = f"such as {others[-1]}" if others else "that thaw.train made"
        raise UserError(f"{path} does not exist: name a run folder {hint}")
    if runs := _runs_in(path):
        best = ". Its summary.md says which is best" if (path / SUMMARY_FILE).is_file() else ""
        raise UserError(f"{path} is no run folder, but holds {len(runs)} of them: name one, such as {runs[-1]}{best}")
    raise UserError(f"{path} is no run folder (it has no {CONFIG_FILE}): name one that thaw.train made")


def _runs_in(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob(f"*/{CONFIG_FILE}"))
