"""Reads the configuration of a run folder, which may be damaged, edited, or somebody else's."""

import logging
import os
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from thaw.config.instantiation import plain
from thaw.config.offered import require_confined, require_offered, unresolved
from thaw.errors import UserError
from thaw.manifest import MANIFEST, is_intact
from thaw.runs.files import CONFIG_FILE, require_run

log = logging.getLogger(__name__)

PARTS = ("data", "backbone", "freezing", "head", "task", "loss", "module", "optimizer", "schedule", "trainer")
"""Keys of every run's configuration with keys of their own."""
WRITTEN = {"dirpath", "filename", "save_dir", "root_dir", "log_dir"}
"""Keys of Lightning's callbacks and loggers that say where they write."""


def load_config(folder: Path) -> DictConfig:
    """The configuration of the run in `folder`, to look at: what it names is not judged, see `read_config`.

    Raises:
        UserError: it is no run folder, or a value is to be filled in from elsewhere.
    """
    file = require_run(folder) / CONFIG_FILE
    config = _loaded(file)
    if found := unresolved(OmegaConf.to_container(config)):
        raise UserError(
            f"{file}: ${{...}} in {', '.join(found)} would be filled in from this machine. thaw writes values only: "
            f"write the value there"
        )
    return config


def read_config(folder: Path, trust: bool = False) -> DictConfig:
    """The configuration of the run in `folder`, to build its parts from.

    Raises:
        UserError: see `load_config`; and, unless `trust`, if the folder could run code or write elsewhere, see
            `thaw.config.offered`.
    """
    config = load_config(folder)
    if not trust:
        require_confined(folder)
        require_offered(plain(config), folder)
    config.run_folder = str(folder)  # wherever it says that it was
    return config


def _loaded(file: Path) -> DictConfig:
    """The configuration of a run from its file. Raises UserError if it is none.

    It may be edited by hand: that is only said. Changes that a resumed run allows for need no editing.
    """
    try:
        config = OmegaConf.load(file)
    except (YAMLError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as YAML ({reason}): mend it, or bring it back from a copy") from error
    content = OmegaConf.to_container(config)
    lacking = [key for key in PARTS if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if lacking:
        raise UserError(
            f"{file} is no configuration of a run: it has no {', '.join(lacking)} with keys of their own. Bring it "
            f"back from a copy"
        )
    assert isinstance(config, DictConfig)
    if not is_intact(file):
        _warn_once(f"{file} is not as the run wrote it ({MANIFEST} has its checksum): it is taken as it is now")
    return config


@lru_cache
def _warn_once(message: str) -> None:
    log.warning(message)


def require_writes_inside(saved: DictConfig, folder: Path) -> None:
    """Raise UserError if callbacks or loggers of the run in `folder` would write elsewhere."""
    for group in ("callbacks", "logger"):
        for name, node in (saved.get(group) or {}).items():
            for key in WRITTEN & set(node or ()):
                place = folder.resolve()
                file = (place if key == "filename" else Path()) / Path(str(node[key] or place)).expanduser()
                if not Path(os.path.realpath(file)).is_relative_to(place):
                    raise UserError(
                        f"{folder / CONFIG_FILE}: {group}.{name}.{key}={node[key]} lies outside of the run folder, and "
                        f"files there would be replaced. Type trust=true if that is your own place"
                    )


def checkpoint_folder(cfg: DictConfig) -> str | None:
    """Folder of the checkpoints, if the configuration names another than the run folder's."""
    return OmegaConf.select(cfg, "callbacks.checkpoint.dirpath")
