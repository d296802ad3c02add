"""How many processes a run is to have, and what environment variables say of this one among them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

FAILURE_VARIABLE, PARENT_VARIABLE = "THAW_FAILURE_FILE", "THAW_PARENT"
"""Of processes that thaw started: where the first to fail writes why; the number of the process that waits for them."""


def launched_rank() -> tuple[int, int] | None:
    """(rank, number of processes) where torchrun, srun or thaw started them, as Lightning finds it; else None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if PARENT_VARIABLE in os.environ:
        # Lightning takes WORLD_SIZE away when a trainer is done.
        return int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", 0))
    if is_slurm():
        return int(os.environ.get("SLURM_PROCID", 0)), int(os.environ["SLURM_NTASKS"])
    return None


def is_slurm() -> bool:
    """Whether this process is a task of a SLURM job, as Lightning finds it."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def asked_trainer(cfg: DictConfig) -> Mapping[str, Any]:
    """The settings of the trainer; of a run that is continued, its own."""
    if cfg.resume is not None:
        named = Path(cfg.resume)
        file = (named.parent.parent if named.is_file() else named) / "config.yaml"
        if file.is_file():
            return OmegaConf.load(file).trainer
    return cfg.trainer


def copies_process(trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning makes the others from this process: nothing is to be started."""
    strategy = trainer.get("strategy", "auto")
    word = strategy if isinstance(strategy, str) else str(strategy.get("start_method"))
    return any(way in word for way in ("spawn", "fork", "notebook"))


def count_devices(trainer: Mapping[str, Any]) -> int:
    """Of this machine, as Lightning reads `trainer.devices`: a number, a list, "0,1", -1 or auto."""
    devices = trainer.get("devices", "auto")
    if str(devices) in ("auto", "-1"):
        if trainer.get("accelerator", "auto") not in ("auto", "gpu", "cuda"):
            return 1
        import torch  # here: --help must not wait for it

        return max(torch.cuda.device_count(), 1)
    if isinstance(devices, str) and "," in devices:
        devices = [device for device in devices.split(",") if device.strip()]
    return int(devices) if isinstance(devices, (int, str)) else len(devices)
