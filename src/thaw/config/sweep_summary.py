"""What Hydra does when a sweep is over."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from thaw.sweeping.trials import read_trials, write_summary


class SweepSummary(Callback):
    """Prints the table of all trials and leaves it in the sweep's folder; exit code 1 where a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = Path(config.hydra.sweep.dir)
        print(f"\n{write_summary(sweep)}\nsummary: {sweep / 'summary.md'}")
        if any(trial.results is None for trial in read_trials(sweep)):
            raise SystemExit(1)
