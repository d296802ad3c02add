"""Hydra callback for the end of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from thaw.sweeping.trials import Trial, best, read_trials, shown_summary, varied, write_summary


class SweepSummary(Callback):
    """Prints, writes and draws the trials; the command leaves with exit code 1 if one failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table after the last trial. Raises SystemExit with code 1 if one failed."""
        sweep = Path(config.hydra.sweep.dir)
        write_summary(sweep)
        print(f"\n{shown_summary(sweep)}\nsummary: {sweep.absolute() / 'summary.md'}, and .csv and .png beside it")
        trials = read_trials(sweep)
        try:
            if drawn := picture(trials):
                (sweep / "summary.png").write_bytes(drawn)
        except Exception as error:  # failed trials must still be reported
            print(f"summary.png was not drawn: {type(error).__name__}: {error}")
        if not trials or any(trial.results is None for trial in trials):
            raise SystemExit(1)


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
