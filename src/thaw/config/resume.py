"""Decides which run a command resumes or begins, and opens its folder."""

import logging
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from thaw.arguments import for_shell
from thaw.config.command import is_trial
from thaw.config.instantiation import plain
from thaw.config.offered import require_confined
from thaw.config.overrides import typed_overrides
from thaw.config.recorded import checkpoint_folder, load_config, read_config, require_writes_inside
from thaw.distributed.environment import count_devices, is_requeued
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.manifest import is_intact
from thaw.runs.files import CHECKPOINTS, CONFIG_FILE, METRICS_FILE, SOUP_FILE, is_run
from thaw.runs.folder import RunFolder
from thaw.training.checkpoint_io import newest_intact

log = logging.getLogger(__name__)

AUTO = "auto"
DEFAULT_BACKBONE = "glyphs"
PATH_WORDS = ("root", "table", "file", "folder", "path")
"""Last words of keys that hold a path, such as `data.root` and `module.teacher_folder`."""
PATHS = ("backbone.weights", "init_from", "callbacks.checkpoint.dirpath")
"""More keys that may hold one. All are absolute in a run folder, so that later commands run from anywhere."""
# None of these changes which samples a step sees; batch size, devices and accumulation would, so they are not here.
# The paths of data may change, too: the same samples, wherever they lie now.
RESUME_MAY_CHANGE = (
    *("trainer.accelerator", "trainer.precision", "trainer.log_every_n_steps", "trainer.profiler"),
    "data.num_workers",
)


def open_together(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    """Call `open_run` on the first process and return its folder, id and configuration on all processes.

    Collective: call on every rank.
    """
    opened: list[tuple[DictConfig, RunFolder]] = []

    def open_on_first() -> list[Any]:
        config, run = open_run(cfg)
        opened.append((config, run))
        return [plain(config), str(run.path), None if run.checkpoint is None else str(run.checkpoint.resolve())]

    values, path, checkpoint = ranks().as_first(open_on_first)
    if opened:
        return opened[0]
    config = OmegaConf.create(values)
    assert isinstance(config, DictConfig)
    return config, RunFolder(path, None if checkpoint is None else Path(checkpoint), checkpoint_folder(config))


def open_run(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    """The run that a composed configuration asks for: a new one, or the one that `resume` tells to continue.

    Returns:
        The configuration (for a resumed run its own, with the changes that were typed) and the run folder.

    Raises:
        UserError: the folder to resume does not fit, or the new one is in use.
    """
    if cfg.init_from is not None and is_run(cfg.init_from) and not cfg.trust:
        require_confined(Path(cfg.init_from))
    if (backbone := _untyped_backbone(cfg)) is not None:
        log.info("backbone: that of %s", cfg.init_from)
        with open_dict(cfg):
            cfg.backbone = backbone
    if cfg.resume is None and not is_requeued():
        return _new(cfg)
    if cfg.resume not in (None, AUTO):
        return _resumed(cfg, Path(cfg.resume), typed_overrides(), cfg.trust)
    folder = _newest_of_same_configuration(cfg)
    if folder is None:
        return _new(cfg)
    if newest_intact(_checkpoints_of(folder)) is None:  # it ended before there was anything to resume from
        with open_dict(cfg):
            cfg.run_folder, cfg.run_id = str(folder), load_config(folder).run_id
        return _new(cfg)
    log.info("resume=auto: %s", folder)
    return _resumed(cfg, folder, [], trust=True)  # its configuration is the one that was typed now


def _new(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    run = RunFolder(_new_path(cfg), checkpoints=checkpoint_folder(cfg))
    if any(run.checkpoints.glob("*.ckpt")):
        _require_one_intact(run.path, run.checkpoints)
        another = "hydra.sweep.dir=..." if is_trial() else "run_folder=..."
        raise UserError(
            f"{run.path} holds a run already: {for_shell('resume', run.path)} continues it, {another} names another"
        )
    with open_dict(cfg):
        cfg.run_folder = str(run.path)
        cfg.run_id = cfg.run_id or os.urandom(4).hex()
        cfg.trust = False  # it was in the folder that this run starts from
        _settle(cfg)
    return cfg, run


def _untyped_backbone(cfg: DictConfig) -> DictConfig | None:
    """The backbone of the run to start from, if there is one and no backbone was chosen."""
    if cfg.init_from is None or not HydraConfig.initialized() or not is_run(cfg.init_from):
        return None
    is_typed = any(re.match(r"[+~]*backbone[.=@]", override) for override in typed_overrides())
    is_default = HydraConfig.get().runtime.choices.get("backbone") == DEFAULT_BACKBONE
    return None if is_typed or not is_default else read_config(Path(cfg.init_from), cfg.trust).backbone


def _resumed(cfg: DictConfig, source: Path, overrides: list[str], trust: bool) -> tuple[DictConfig, RunFolder]:
    """The run in `source`, a run folder or one of its checkpoints, with the changes in `overrides`."""
    keys = [override.lstrip("+").split("=", 1)[0] for override in overrides]
    refused = [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in ("resume", "trust", *RESUME_MAY_CHANGE)
        and not (key.startswith("data.") and is_path_key(key))
        and not _is_of_plan(key)
    ]
    if refused:
        raise UserError(
            f"resume={source} continues a run as it was configured; not with "
            f"{', '.join(refused)}: only {', '.join(RESUME_MAY_CHANGE)} may change, the paths of data (data.root=...) "
            f"and by freezing=... the phases that have not begun. To start a new run from its weights: "
            f"python -m thaw.train {for_shell('init_from', source)}"
        )
    folder = source.parent.parent if source.is_file() else source
    saved = read_config(folder, trust)
    if not trust:
        require_writes_inside(saved, folder)
    checkpoints = _checkpoints_of(folder)
    if source.is_file() and not is_intact(source):
        raise UserError(f"{source} is not as it was written: its checksum differs. Type {for_shell('resume', folder)}")
    checkpoint = source if source.is_file() else newest_intact(checkpoints)
    if checkpoint is None:
        _require_one_intact(folder, checkpoints)
        if (folder / METRICS_FILE).is_file():
            raise UserError(
                f"{folder} has ended, and its checkpoints are gone. To start a new run from its weights: "
                f"python -m thaw.train {for_shell('init_from', folder)}"
            )
        raise UserError(
            f"{folder} has no checkpoint to continue from: its run ended before the first was written. "
            f"Start it again: {for_shell('run_folder', folder)}"
        )
    run = RunFolder(folder, checkpoint, checkpoint_folder(saved))
    if run.metrics() and not any(map(_is_of_plan, keys)):
        log.warning(
            "%s has ended: nothing is trained, its results are measured again. To train on: %s, or further phases by "
            "freezing=phases",
            folder,
            f"python -m thaw.train {for_shell('init_from', folder)}",
        )
    for key in keys:
        if key not in ("resume", "trust") and not _is_of_plan(key):
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    _change_plan(saved, cfg, keys)
    saved.run_folder = str(run.path)
    _settle(saved)
    return saved, run


def _change_plan(saved: DictConfig, cfg: DictConfig, keys: Sequence[str]) -> None:
    """Take the plan of `cfg` if another was chosen, or else the keys of the saved plan that were typed.

    Raises:
        UserError: the saved plan has no such key.
    """
    if "freezing" in keys:
        saved.freezing = cfg.freezing
        return
    for key in filter(_is_of_plan, keys):
        if (name := key.partition(".")[2]) not in saved.freezing:
            others = ", ".join(f"freezing.{name!s}" for name in saved.freezing if name != "_target_")
            raise UserError(f"the plan of this run has no {key}. It has {others}")
        saved.freezing[name] = OmegaConf.select(cfg, key)


def _checkpoints_of(folder: Path) -> Path:
    return Path(checkpoint_folder(load_config(folder)) or folder / CHECKPOINTS)


def _require_one_intact(folder: Path, checkpoints: Path) -> None:
    """Raise UserError if there are checkpoints, and all of them are damaged."""
    if any(checkpoints.glob("*.ckpt")) and newest_intact(checkpoints) is None:
        raise UserError(
            f"the checkpoints of {folder} are all damaged: delete {checkpoints} to start the run again there, or "
            f"name another place, run_folder=..."
        )


def _newest_of_same_configuration(cfg: DictConfig) -> Path | None:
    """The newest run folder of this configuration that no process trains in.

    It is the folder that `run_folder` names, if that was typed, or else one beside the default.
    """
    named, wanted = _new_path(cfg), _without_place(cfg)
    is_chosen = is_trial() or any(override.startswith("run_folder=") for override in typed_overrides())
    folders = [named] if is_chosen else sorted((f.parent for f in named.parent.glob(f"*/{CONFIG_FILE}")), key=_age)
    for folder in filter(partial(_has_configuration, wanted), folders):
        if is_chosen or not RunFolder(folder).in_use:
            return folder
        log.info("%s is of this configuration, and in use: it is left alone", folder)
    return None


def _has_configuration(wanted: DictConfig, folder: Path) -> bool:
    if not (folder / CONFIG_FILE).is_file() or (folder / SOUP_FILE).is_file():  # a soup has a run's configuration
        return False
    try:
        return _without_place(load_config(folder)) == wanted
    except Exception as error:  # whatever is wrong in another folder ends no run
        log.warning("resume=auto: %s is left alone, its %s cannot be used: %s", folder, CONFIG_FILE, error)
        return False


def _age(folder: Path) -> float:
    """A sort key that puts the newest folder first."""
    file = folder / CONFIG_FILE
    return -file.stat().st_mtime if file.is_file() else 0.0


def _without_place(cfg: DictConfig) -> DictConfig:
    """The configuration without folder, id and `resume`: equal for runs that are the same."""
    stripped = OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))  # as a run folder has it
    assert isinstance(stripped, DictConfig)
    _settle(stripped)
    for key in ("run_folder", "run_id", "resume", "trust"):
        stripped.pop(key, None)
    return stripped


def _new_path(cfg: DictConfig) -> Path:
    return Path(HydraConfig.get().runtime.output_dir) if is_trial() else Path(str(cfg.run_folder))


def _settle(cfg: DictConfig) -> None:
    """Resolve settings that depend on where the command was typed: relative paths, and the number of devices."""
    if str(cfg.trainer.devices) in ("auto", "-1"):
        cfg.trainer.devices = count_devices(cfg.trainer)
    nodes = [(group, node) for group, node in cfg.items() if isinstance(node, DictConfig)]
    for key in (*PATHS, *(f"{group!s}.{key!s}" for group, node in nodes for key in node if is_path_key(str(key)))):
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and "://" not in value:
            path = Path(value).expanduser().absolute()
            # Others may hold names: `default`, the id of a network on a hub.
            is_surely_path = key in ("data.root", "data.table", "init_from", "callbacks.checkpoint.dirpath")
            if is_surely_path or path.exists():
                OmegaConf.update(cfg, key, str(path))


def is_path_key(key: str) -> bool:
    """Whether a key holds a path, by its last word."""
    return re.split(r"[._]", key)[-1] in PATH_WORDS


def _is_of_plan(key: str) -> bool:
    return key.split(".")[0] == "freezing"
