"""Hydra callback for the end of a sweep."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from thaw.distributed.environment import is_requeued
from thaw.errors import UserError
from thaw.runs.files import SUMMARY_FILE, SWEEP_PAGE
from thaw.runs.trials import FAILED, Trial, holds_numbered_trials, read_trials
from thaw.sweeping.importance import importance
from thaw.sweeping.tables import recalls, short_table, shown_summary, write_summary

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


def summarise(sweep: Path, output: Path | None = None) -> list[Trial]:
    """Print, write and draw the trials of a sweep into `output`, its own folder if that is None; return the trials."""
    trials = read_trials(sweep)
    folder = (output or sweep).absolute()
    print(f"\n{shown_summary(trials)}\nsummary: {folder / SUMMARY_FILE}")  # first: writing may fail
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_summary(sweep, folder)
    except OSError as error:  # Hydra would leave with exit code 0
        sys.exit(f"error: the summary was not written: {error}")
    from thaw.storage import written_whole  # imports torch: the table does not wait for it

    for name, made in (("summary.png", picture), (SWEEP_PAGE, partial(page, sweep, output=folder))):
        try:
            if content := made(trials):
                with written_whole(folder / name) as temporary:
                    temporary.write_bytes(content)
        except Exception as error:  # failed trials must still be reported
            print(f"{name} was not written: {type(error).__name__}: {error}")
        else:
            if name == SWEEP_PAGE:
                print(f"page: {folder / name}")
    return trials


def picture(trials: Sequence[Trial]) -> bytes | None:
    """A PNG of what varied and the monitored metric, a line for each trial; None if no trial has the metric."""
    # Here, and not at the top: `--help` must not wait for matplotlib.
    from thaw.reporting.pictures.render import png
    from thaw.reporting.sweep_charts import choices

    return None if (figure := choices(trials)) is None else png(figure)


def page(sweep: Path, trials: Sequence[Trial], output: Path) -> bytes:
    """The page of a sweep, to lie in the folder `output`."""
    from thaw.reporting.sweep_page import Sweep, render_sweep

    shares: dict[str, float] = {}
    missing = ""
    try:
        shares = importance(trials)
    except UserError as error:
        missing = str(error)
    except Exception as error:  # of Optuna, about which the page can do without
        missing = f"{type(error).__name__}: {error}"
    shown = Sweep(sweep, trials, short_table(trials, reasons=False), recalls(trials), shares, missing)
    return render_sweep(shown, output).encode()
