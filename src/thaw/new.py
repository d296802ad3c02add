"""Make a project of your own: `python -m thaw.new my_project`, or `kind=whole` for the template under another name."""

import shlex
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.config.conf_folder import CONF
from thaw.errors import UserError
from thaw.new_project.names import require_name
from thaw.new_project.thin import make_thin
from thaw.new_project.whole import PACKAGE, make_whole


@command("new", as_typed="name")
def typed(cfg: DictConfig) -> None:
    """Print what was made, and what to type next."""
    print(new(cfg))


def main() -> None:
    """Entry point of the command line: a first word without `=` is the name."""
    sys.argv[1:2] = [word if "=" in word or word.startswith("-") else f"name={word}" for word in sys.argv[1:2]]
    typed()


def new(cfg: DictConfig) -> str:
    """Make the project `cfg.name` in a folder of this name in `cfg.dest`; return what to type next.

    Raises:
        UserError: the name cannot be had, the folder exists or would be part of a clone of thaw, or there is no clone.
    """
    name, dest = str(cfg.name), Path(str(cfg.dest)).expanduser().resolve()
    require_name(name)
    clone = CONF.parent if (CONF.parent / "src" / PACKAGE).is_dir() else None
    folder = dest / name
    if folder.exists():
        raise UserError(f"{folder} exists already: type another name, or dest=<another folder>")
    if clone is not None and folder.is_relative_to(clone):
        raise UserError(f"{folder} would be part of this clone of thaw: type dest={clone.parent}, or another folder")
    dest.mkdir(parents=True, exist_ok=True)
    # Made under another name beside it, so that there is no half of a project if anything fails.
    with tempfile.TemporaryDirectory(dir=dest, prefix=f".{name}-") as beside:
        unfinished = Path(beside) / name
        unfinished.mkdir()
        first = (make_whole if cfg.kind == "whole" else make_thin)(unfinished, name, clone)
        unfinished.rename(folder)
    return "\n  ".join([f"made {folder}. Next:", f"cd {shlex.quote(str(folder))}", *first, "make train"])


if __name__ == "__main__":
    main()
