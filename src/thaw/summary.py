"""Compare the trials of a sweep, which may still run: `python -m thaw.summary sweep=<folder>`."""

from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.config.sweep_summary import summarise
from thaw.runs.trials import require_sweep


@command("summary")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    summary(cfg)


def summary(cfg: DictConfig) -> Path:
    """Print the table of a sweep, write its tables, picture and page, and return the folder they are in.

    Raises UserError if `folder` holds no trials.
    """
    sweep = require_sweep(Path(cfg.folder).expanduser())
    output = sweep if cfg.output is None else Path(cfg.output).expanduser()
    summarise(sweep, output)
    return output


if __name__ == "__main__":
    main()
