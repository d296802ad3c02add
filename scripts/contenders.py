"""What benchmarks of trainers share: a process for each contender, the times of its epochs, cells of a table."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Outcome = dict[str, Any]
"""What one run of a contender measured, by name."""


class Clock:
    """The times of one run, from when the clock is made."""

    def __init__(self, frozen_epochs: int, full_epochs: int):
        self.frozen_epochs, self.full_epochs = frozen_epochs, full_epochs
        self.begin = time.perf_counter()
        self.fit: float | None = None
        """When training was called for; None: at the first mark."""
        self.marks: list[float] = []
        """When the first epoch began, and when each epoch was over."""
        self.loader_processes = 0
        """Most of them that were alive at a mark."""

    def mark(self) -> None:
        self.marks.append(time.perf_counter())
        self.loader_processes = max(self.loader_processes, len(multiprocessing.active_children()))

    def outcome(self, accuracy: float) -> Outcome:
        """Seconds: of all frozen epochs with what comes before them, of a frozen and of a full epoch, in total."""
        seconds = [later - earlier for earlier, later in pairwise(self.marks)]
        assert len(seconds) == self.frozen_epochs + self.full_epochs, f"{len(seconds)} epochs were trained"
        # The first epoch of each kind also warms up: workers, memory, kernels.
        frozen, full = seconds[: self.frozen_epochs], seconds[self.frozen_epochs :]
        return {
            "all_frozen": self.marks[self.frozen_epochs] - (self.marks[0] if self.fit is None else self.fit),
            "frozen": statistics.median(frozen[1:] or frozen) if frozen else None,
            "full": statistics.median(full[1:] or full) if full else None,
            "total": time.perf_counter() - self.begin,
            "accuracy": accuracy,
            "loader_processes": self.loader_processes,
        }


def fit(clock: Clock, trainer: Any, *what: Any) -> None:
    """Lightning's `trainer.fit(*what)`, timed."""
    from lightning import Callback

    class Marks(Callback):
        def on_train_start(self, *_: Any) -> None:
            clock.mark()

        def on_train_epoch_end(self, *_: Any) -> None:
            clock.mark()

    trainer.callbacks.append(Marks())  # behind those that write checkpoints
    clock.fit = time.perf_counter()
    trainer.fit(*what)


def in_own_process(
    script: str, name: str, seed: int, environment: Mapping[str, str], options: Sequence[str] = ()
) -> Outcome | None:
    """What `script --only name` prints, with this process's options and `options` over them; None where it failed."""
    command = [sys.executable, script, *sys.argv[1:], *options, "--only", name, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        print(f"{name} failed: {said.splitlines()[-1]}", file=sys.stderr)
        return None
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(name, seed, outcome, file=sys.stderr)
    return outcome


def median(runs: Sequence[Outcome], name: str) -> float | None:
    """None where the runs have no such number."""
    values = [run[name] for run in runs]
    return None if not values or None in values else statistics.median(values)


def cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def accuracies(runs: Sequence[Outcome]) -> str:
    values = [run["accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(values):.3f}" if len(runs) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
