"""Makes folders of trials, as a sweep leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path

from thaw.runs.trials import record_failure, record_pruned


def finished(
    sweep: Path,
    name: int | str,
    score: float,
    *typed: str,
    seconds: float = 2.5,
    mode: str = "max",
    curve: Sequence[float] = (),
) -> Path:
    """A trial that came to an end; `curve`: its monitored metric by epoch."""
    folder = begun(sweep, name, *typed, curve=curve)
    metrics = {"m/test": score - 0.125, "loss/test": 0.25}
    results = {"monitor": "m/val", "mode": mode, "best": score, "epoch": 4, "seconds": seconds, "metrics": metrics}
    (folder / "metrics.json").write_text(json.dumps(results))
    return folder


def begun(sweep: Path, name: int | str, *typed: str, curve: Sequence[float] = ()) -> Path:
    """A trial that trains."""
    folder = sweep / str(name)
    folder.mkdir(parents=True)
    (folder / "overrides.json").write_text(json.dumps(typed))
    if curve:
        rows = [f"{epoch},{value}\n" for epoch, value in enumerate(curve)]
        (folder / "metrics.csv").write_text("epoch,m/val\n" + "".join(rows))
    return folder


def failed(sweep: Path, name: int | str, message: str, *typed: str) -> Path:
    """A trial that failed."""
    folder = sweep / str(name)
    folder.mkdir(parents=True)
    record_failure(folder, list(typed), message)
    return folder


def pruned(sweep: Path, name: int | str, value: float, message: str, *typed: str, curve: Sequence[float] = ()) -> Path:
    """A trial that was ended early."""
    folder = begun(sweep, name, *typed, curve=curve)
    record_pruned(folder, "m/val", "max", value, len(curve), message)
    return folder
