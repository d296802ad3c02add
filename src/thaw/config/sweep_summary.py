"""Hydra callback for the end of a sweep."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from thaw.sweeping.trials import read_trials, write_summary


class SweepSummary(Callback):
    """Prints and writes the table of all trials; the command leaves with exit code 1 if a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table after the last trial. Raises SystemExit with code 1 if a trial failed."""
        sweep = Path(config.hydra.sweep.dir)
        print(f"\n{write_summary(sweep)}\nsummary: {sweep / 'summary.md'}")
        if any(trial.results is None for trial in read_trials(sweep)):
            raise SystemExit(1)
