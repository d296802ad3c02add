"""Which names a project may have: its package has the same."""

import keyword
import re
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from thaw.errors import UserError

NAME = re.compile(r"[a-z]([a-z0-9_]*[a-z0-9])?")
FOLDERS = {"conf", "docs", "runs", "scripts", "src", "tests"}
"""Folders that a project has beside its package."""


def require_name(name: str) -> None:
    """Raise UserError, which says what to type instead, if a project cannot be called so."""
    if not NAME.fullmatch(name):
        meant = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
        meant = meant if NAME.fullmatch(meant) else f"project_{meant}".strip("_")
        raise UserError(
            f"{name!r} is no name of a package, which is small letters, digits and _, a letter first: type {meant}"
        )
    if taken := _taken_by(name):
        raise UserError(f"{name} is {taken}: type another name, such as {name}_project")


def _taken_by(name: str) -> str | None:
    """What has this name already; None if it is free. Modules in the working folder do not count."""
    if keyword.iskeyword(name):
        return "a keyword of Python"
    if name in sys.stdlib_module_names:
        return "a module of Python's standard library"
    if name in FOLDERS:
        return "a folder that every project has"
    path = [entry for entry in sys.path if entry and Path(entry) != Path.cwd()]
    if PathFinder.find_spec(name, path) is not None or _is_distribution(name):
        return "an installed package"
    return None


def _is_distribution(name: str) -> bool:
    try:
        return distribution(name.replace("_", "-")) is not None
    except PackageNotFoundError:
        return False
