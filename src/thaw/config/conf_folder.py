"""Where configurations are: thaw's, and before them those of the project that a command is typed in."""

import sys
from importlib.resources import files
from pathlib import Path

from thaw.errors import UserError
from thaw.runs.files import CONFIG_FILE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONF = Path(str(files("thaw"))).joinpath("conf").resolve()
"""The configurations: part of an installed package, and in a clone the folder `conf/`, to which a link leads."""
if CONF.is_file():  # a clone on Windows has the link as a text file
    CONF = (CONF.parent / CONF.read_text().strip()).resolve()
TABLE = '[tool.thaw] in pyproject.toml takes the folder of your configurations: conf = "conf"'


def project_conf() -> Path | None:
    """The folder of configurations that `[tool.thaw]` in the working folder's `pyproject.toml` names, if there is one.

    Folders above are not looked at: the user's Python code is imported from the working folder, too, and may be nobody
    else's there.

    Raises:
        UserError: the table cannot be read or names no folder, or the working folder is a run folder, which may be
            somebody else's.
    """
    project = Path.cwd()
    file = project / "pyproject.toml"
    if not file.is_file() or "thaw" not in (text := file.read_text(encoding="utf-8", errors="replace")):
        return None
    try:
        table = tomllib.loads(text).get("tool", {}).get("thaw")
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if table is None:
        return None
    if (project / CONFIG_FILE).exists():
        raise UserError(f"{file} has [tool.thaw], but this is a run folder (it has a {CONFIG_FILE}): leave it first")
    folder = project / str(table.get("conf", ""))
    if "conf" not in table or not folder.is_dir():
        raise UserError(f"{TABLE}, not {table}")
    return folder


def conf_folders() -> list[Path]:
    """The project's folder of configurations, if there is one, and thaw's; the first that has a file counts."""
    return [folder for folder in (project_conf(), CONF) if folder is not None]


def conf_file(name: str) -> Path:
    """The file `name` in the first of these folders that has it."""
    found = [folder / name for folder in conf_folders() if (folder / name).is_file()]
    return found[0] if found else CONF / name
