"""Hydra callback for the end of a sweep."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from thaw.distributed.environment import is_requeued
from thaw.runs.trials import FAILED, Trial, best, holds_numbered_trials, read_trials, varied
from thaw.sweeping.tables import shown_summary, write_summary

NUMBERED = "${hydra.job.num}"
"""What `hydra.sweep.subdir` is if the folders of trials have numbers for names."""


class SweepSummary(Callback):
    """Prints, writes and draws the trials; the command leaves with exit code 1 if one failed.

    Attributes:
        unfinished: folder of the sweep that this process works on; None if there is none.
    """

    unfinished: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of the sweep. Raises SystemExit if numbered trials of an earlier sweep lie in it."""
        sweep = Path(config.hydra.sweep.dir)
        subdir = config.hydra.sweep._get_node("subdir")._value()
        goes_on = config.get("resume") == "auto" or is_requeued()
        if subdir == NUMBERED and not goes_on and holds_numbered_trials(sweep):
            sys.exit(
                f"error: {sweep} holds the trials of a sweep already: resume=auto goes on with it, hydra.sweep.dir=... "
                f"names another folder"
            )
        SweepSummary.unfinished = sweep

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table after the last trial. Raises SystemExit with code 1 if one failed."""
        SweepSummary.unfinished = None
        trials = summarise(Path(config.hydra.sweep.dir))
        if not trials or any(trial.state == FAILED for trial in trials):
            raise SystemExit(1)

    @classmethod
    def write_unfinished(cls) -> None:
        """Print and write the table of a sweep that was stopped, if there is one."""
        if (sweep := cls.unfinished) is not None and sweep.is_dir():
            cls.unfinished = None
            summarise(sweep)


def summarise(sweep: Path) -> list[Trial]:
    """Print, write and draw the trials of a sweep, and return them."""
    trials = read_trials(sweep)
    print(f"\n{shown_summary(trials)}\nsummary: {sweep.absolute() / 'summary.md'}")  # first: writing may fail
    try:
        write_summary(sweep)
    except OSError as error:  # Hydra would leave with exit code 0
        sys.exit(f"error: the summary was not written: {error}")
    try:
        if drawn := picture(trials):
            (sweep / "summary.png").write_bytes(drawn)
    except Exception as error:  # failed trials must still be reported
        print(f"summary.png was not drawn: {type(error).__name__}: {error}")
    return trials


def picture(trials: Sequence[Trial]) -> bytes | None:
    """A PNG of what varied and the monitored metric, a line for each trial; None if no trial has the metric."""
    # Here, and not at the top: `--help` must not wait for matplotlib.
    from thaw.reporting.pictures.parallel_coordinates import parallel_coordinates
    from thaw.reporting.pictures.render import png

    if (winner := best(trials)) is None or winner.results is None:
        return None
    metric, mode = winner.results["monitor"], winner.results["mode"]
    keys = varied(trials)
    rows = [
        {
            **{key: _number(value) for key, value in trial.choices(keys).items()},
            metric: (trial.results or {}).get("best"),
        }
        for trial in trials
    ]
    return png(parallel_coordinates(rows, metric, mode))


def _number(value: str) -> float | str:
    """A number if it is one."""
    try:
        return float(value)
    except ValueError:
        return value
