"""Compare the trials of a sweep, which may still run: `python -m thaw.summary folder=<folder>`."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.config.sweep_summary import summarise
from thaw.runs.trials import require_sweep


@command("summary")
def typed(cfg: DictConfig) -> None:
    """Print and write what the trials came to."""
    summary(cfg)


def main() -> None:
    """Entry point of the command line: takes `sweep=<folder>`, too, although `sweep` is a group of Hydra."""
    sys.argv[1:] = [f"folder={word[6:]}" if word.startswith("sweep=") else word for word in sys.argv[1:]]
    typed()


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
