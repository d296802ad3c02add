"""The template itself, under another name."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from thaw.errors import UserError
from thaw.new_project.renaming import copy_renamed, files_below

PACKAGE = __name__.partition(".")[0]
CHANGELOG = "# Changelog\n\n## 0.1.0 (unreleased)\n"


def make_whole(folder: Path, name: str, clone: Path | None) -> list[str]:
    """Write the files of a clone into the empty folder, with `name` for thaw's; no history, no runs.

    Lines and the order of imports depend on the name, so the code is formatted again, if ruff is installed.

    Returns:
        What to type before `make train`.

    Raises:
        UserError: there is no clone.
    """
    if clone is None:
        raise UserError(
            "kind=whole copies a clone of thaw, and this is an installed package, without tests and docs: type the "
            "command in a clone, or kind=thin"
        )
    copy_renamed(_files(clone), clone, folder, PACKAGE, name)
    (folder / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    pyproject = folder / "pyproject.toml"  # comments and texts, which nobody breaks, may be too long now
    text = re.sub(r"^ignore = \[", 'ignore = ["E501", ', pyproject.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pyproject.write_text(text, encoding="utf-8")
    if find_spec("ruff") is None:
        return ["make format   # ruff, which does it, is not installed here"]
    for words in (["check", "--fix", "--exit-zero"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--quiet", "--no-cache", "."]
        subprocess.run(ruff, cwd=folder, check=True, capture_output=True)
    return []


def _files(clone: Path) -> list[Path]:
    """Files that git knows; where it knows none, all that .gitignore does not name. Deleted ones are left out."""
    git = ["git", "-C", str(clone), "ls-files", "-z"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = []
    files = [Path(name) for name in filter(None, listed)] or files_below(clone)
    return [file for file in files if (clone / file).exists()]
