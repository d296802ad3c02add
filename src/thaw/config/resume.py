"""Which run a command goes on with, or begins."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from yaml import YAMLError

from thaw.distributed.environment import count_devices
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.runs.folder import CONFIG_FILE, RunFolder, typed_overrides
from thaw.training.checkpoint_io import is_intact, newest_intact

log = logging.getLogger(__name__)

AUTO = "auto"
# What moves no step to another place: batches, devices and accumulation decide how many steps an epoch has.
RESUME_MAY_CHANGE = (
    *("trainer.accelerator", "trainer.precision", "trainer.log_every_n_steps", "trainer.profiler"),
    *("data.root", "data.table", "data.num_workers"),  # the same samples, wherever they lie now
)
PATHS = ("data.root", "data.table", "backbone.weights", "init_from", "callbacks.checkpoint.dirpath")
"""Keys that may name a place: whole in the run folder's configuration, so that later commands run from anywhere."""


def open_together(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    """`open_run`, as the first of the run's processes finds it: the same folder, id and configuration on all."""
    opened: list[tuple[DictConfig, RunFolder]] = []

    def as_first() -> list[Any]:
        cfg_of_run, run = open_run(cfg)
        opened.append((cfg_of_run, run))
        plain = OmegaConf.to_container(cfg_of_run, resolve=True)
        return [plain, str(run.path), None if run.checkpoint is None else str(run.checkpoint.resolve())]

    plain, path, checkpoint = ranks().as_first(as_first)
    if opened:
        return opened[0]
    return OmegaConf.create(plain), RunFolder(path, None if checkpoint is None else Path(checkpoint))


def open_run(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    """The run that a composed configuration asks for: a new one, or the one that `resume` names, as it was configured.

    Raises UserError where the folder to continue does not fit, or the new one is in use; OSError where it cannot be
    written.
    """
    if cfg.resume is None and not _queued_again():
        return _new(cfg)
    if cfg.resume not in (None, AUTO):
        return _continued(cfg, Path(cfg.resume), typed_overrides())
    found = _newest_alike(cfg)
    if found is None:
        return _new(cfg)
    if newest_intact(RunFolder(found).checkpoints) is None:  # it ended before there was anything to go on from
        with open_dict(cfg):
            cfg.run_folder, cfg.run_id = str(found), RunFolder(found).config().run_id
        return _new(cfg)
    log.info("resume=auto: %s", found)
    return _continued(cfg, found, [])


def _new(cfg: DictConfig) -> tuple[DictConfig, RunFolder]:
    run = RunFolder(_new_path(cfg))
    if any(run.checkpoints.glob("*.ckpt")):
        _require_whole(run.path)
        raise UserError(f"{run.path} holds a run already: resume={run.path} continues it, run_folder=... names another")
    with open_dict(cfg):
        cfg.run_folder = str(run.path)
        cfg.run_id = cfg.run_id or os.urandom(4).hex()
        _settle(cfg)
    return cfg, run


def _continued(cfg: DictConfig, named: Path, overrides: list[str]) -> tuple[DictConfig, RunFolder]:
    """`named`: a run folder, or one of its checkpoints. `overrides`: what is to change."""
    keys = [override.lstrip("+").split("=", 1)[0] for override in overrides]
    others = [
        o
        for o, key in zip(overrides, keys, strict=True)
        if key not in ("resume", *RESUME_MAY_CHANGE) and not _of_the_plan(key)
    ]
    if others:
        raise UserError(
            f"resume={named} continues a run as it was configured; not with "
            f"{', '.join(others)}: only {', '.join(RESUME_MAY_CHANGE)} may change (+data.root=... where it moved), and "
            f"by freezing=... the phases that have not begun. To start a new run from its weights: init_from={named}"
        )
    folder = named.parent.parent if named.is_file() else named
    saved = RunFolder(folder).config()
    if named.is_file() and not is_intact(named):
        raise UserError(f"{named} is not as it was written: its checksum differs. Type resume={folder}")
    checkpoint = named if named.is_file() else newest_intact(RunFolder(folder).checkpoints)
    if checkpoint is None:
        _require_whole(folder)
        raise UserError(
            f"{folder} has no checkpoint to continue from: its run ended before the first was written. "
            f"Start it again: run_folder={folder}"
        )
    run = RunFolder(folder, checkpoint)
    for key in keys:
        if key != "resume" and not _of_the_plan(key):
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    if any(map(_of_the_plan, keys)):
        saved.freezing = cfg.freezing
    saved.run_folder = str(run.path)
    _settle(saved)
    return saved, run


def _require_whole(folder: Path) -> None:
    """Raises UserError where there are checkpoints, and all are damaged."""
    checkpoints = RunFolder(folder).checkpoints
    if any(checkpoints.glob("*.ckpt")) and newest_intact(checkpoints) is None:
        raise UserError(
            f"the checkpoints of {folder} are all damaged: delete {checkpoints} to start the run again there, or "
            f"name another place, run_folder=..."
        )


def _queued_again() -> bool:
    """Whether this is a SLURM job that had been taken off its machine."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def _newest_alike(cfg: DictConfig) -> Path | None:
    """The folder of the newest run of this configuration that no process has: the one that is named, where one is, or
    one beside it."""
    named, wanted = _new_path(cfg), _without_place(cfg)
    is_chosen = _is_multirun() or any(override.startswith("run_folder=") for override in typed_overrides())
    found = [named] if is_chosen else sorted((f.parent for f in named.parent.glob(f"*/{CONFIG_FILE}")), key=_age)
    for run in filter(partial(_is_alike, wanted), found):
        if is_chosen or not RunFolder(run).in_use:
            return run
        log.info("%s is of this configuration, and in use: it is left alone", run)
    return None


def _is_alike(wanted: DictConfig, folder: Path) -> bool:
    try:
        return _without_place(RunFolder(folder).config()) == wanted
    except (OSError, ValueError, YAMLError, AssertionError):  # whatever lies there
        return False


def _age(folder: Path) -> float:
    """Negative: the newest first."""
    file = folder / CONFIG_FILE
    return -file.stat().st_mtime if file.is_file() else 0.0


def _without_place(cfg: DictConfig) -> DictConfig:
    """What makes two runs the same."""
    same = OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))  # as a run folder has it
    assert isinstance(same, DictConfig)
    _settle(same)
    for key in ("run_folder", "run_id", "resume"):
        same.pop(key, None)
    return same


def _new_path(cfg: DictConfig) -> Path:
    return Path(HydraConfig.get().runtime.output_dir) if _is_multirun() else Path(cfg.run_folder)


def _is_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _settle(cfg: DictConfig) -> None:
    """What depends on where the command was typed: paths, and how many devices there are."""
    if str(cfg.trainer.devices) in ("auto", "-1"):
        cfg.trainer.devices = count_devices(cfg.trainer)
    for key in PATHS:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str):
            path = Path(value).expanduser().absolute()
            if key != "backbone.weights" or path.is_file():  # they may also be called `default`
                OmegaConf.update(cfg, key, str(path))


def _of_the_plan(key: str) -> bool:
    return key.split(".")[0] == "freezing"
