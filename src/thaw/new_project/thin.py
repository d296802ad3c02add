"""A project that uses the installed thaw: its own parts, and what is around them."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from thaw import __version__
from thaw.new_project.renaming import copy_renamed, files_below

DISTRIBUTION = "lightning-thaw"
TEMPLATE = Path(__file__).parent / "thin"
"""A project that works as it lies there, called `my_project`."""


def make_thin(folder: Path, name: str, clone: Path | None) -> list[str]:
    """Write the project `name` into the empty folder.

    Args:
        folder: of the project.
        name: of the project.
        clone: of thaw, if that is what runs.

    Returns:
        What to type before `make train`.
    """
    copy_renamed(files_below(TEMPLATE), TEMPLATE, folder, "my_project", name)
    file = folder / "pyproject.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(">=0.0.0", f">={__version__}"), encoding="utf-8")
    source = _origin(clone)
    comment = f"# where {DISTRIBUTION} is on no package index"
    return [] if source is None else [f"make install THAW={shlex.quote(source)}   {comment}"]


def _origin(clone: Path | None) -> str | None:
    """What pip can install this thaw from: the clone that runs, or what pip installed; None: a package index."""
    if clone is not None:
        return str(clone)
    try:
        about = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return None
    repository = "git+" if "vcs_info" in about else ""
    return f"{repository}{about['url']}" if about else None
