"""What the benchmarks of images share: a process per contender, a clock for epochs, and cells of tables."""

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
"""Measurements of one run, by name."""


class Clock:
    """Takes the times of one run, which begins when the clock is made.

    Args:
        frozen_epochs: number of epochs in which only the head trains; they come first.
        full_epochs: number of epochs in which everything trains.
    """

    def __init__(self, frozen_epochs: int, full_epochs: int):
        self.frozen_epochs, self.full_epochs = frozen_epochs, full_epochs
        self.begin = time.perf_counter()
        self.fit: float | None = None
        """Time at which training was started; None if that is the first mark."""
        self.marks: list[float] = []
        """Times of the start of the first epoch and of the end of each."""
        self.loader_processes = 0
        """Largest number of child processes alive at a mark."""

    def mark(self) -> None:
        """Note the time: call it at the start of the first epoch and at the end of each."""
        self.marks.append(time.perf_counter())
        self.loader_processes = max(self.loader_processes, len(multiprocessing.active_children()))

    def outcome(self, accuracy: float) -> Outcome:
        """Return the seconds of all frozen epochs, of one frozen and one full epoch, and of the whole run so far."""
        seconds = [later - earlier for earlier, later in pairwise(self.marks)]
        assert len(seconds) == self.frozen_epochs + self.full_epochs, f"{len(seconds)} epochs were trained"
        # The first epoch of each kind also starts loader processes, allocates memory and picks kernels.
        frozen, full = seconds[: self.frozen_epochs], seconds[self.frozen_epochs :]
        return {
            "all_frozen": self.marks[self.frozen_epochs] - (self.marks[0] if self.fit is None else self.fit),
            "frozen": statistics.median(frozen[1:] or frozen) if frozen else None,
            "full": statistics.median(full[1:] or full) if full else None,
            "total": time.perf_counter() - self.begin,
            "accuracy": accuracy,
            "loader_processes": self.loader_processes,
        }


def fit(clock: Clock, trainer: Any, *arguments: Any) -> None:
    """Call Lightning's `trainer.fit(*arguments)` and time its epochs."""
    from lightning import Callback

    class Marks(Callback):
        def on_train_start(self, *_: Any) -> None:
            clock.mark()

        def on_train_epoch_end(self, *_: Any) -> None:
            clock.mark()

    trainer.callbacks.append(Marks())  # last, so that checkpoints are written before the mark
    clock.fit = time.perf_counter()
    trainer.fit(*arguments)


def in_own_process(
    script: str, name: str, seed: int, environment: Mapping[str, str], options: Sequence[str] = ()
) -> Outcome | None:
    """Run one contender in a new process: this script with `--only name`.

    Args:
        script: file of the benchmark.
        name: name of the contender.
        seed: seed of the run.
        environment: environment variables to add.
        options: command-line options that replace those of this process.

    Returns:
        The outcome that the process prints as JSON; None if it failed.
    """
    command = [sys.executable, script, *sys.argv[1:], *options, "--only", name, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        message = done.stderr.strip() or f"exit code {done.returncode}"
        print(f"{name} failed: {message.splitlines()[-1]}", file=sys.stderr)
        return None
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(name, seed, outcome, file=sys.stderr)
    return outcome


def median(runs: Sequence[Outcome], name: str) -> float | None:
    """Return the median of one measurement over runs; None if a run does not have it."""
    values = [run[name] for run in runs]
    return None if not values or None in values else statistics.median(values)


def cell(value: float | None, digits: int) -> str:
    """Format a number for a table; "-" stands for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def accuracies(runs: Sequence[Outcome]) -> str:
    """Format mean and standard deviation of the accuracy."""
    values = [run["accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(values):.3f}" if len(runs) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
