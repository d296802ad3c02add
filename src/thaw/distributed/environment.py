"""How many processes a run wants, and which of them this one is."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def launched_rank() -> tuple[int, int] | None:
    """Return (rank, number of processes) if torchrun, srun or thaw started this process, else None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if is_slurm():
        return int(os.environ.get("SLURM_PROCID", 0)), int(os.environ["SLURM_NTASKS"])
    return None


def node_and_local_rank() -> tuple[str, int]:
    """Return the number of this machine in the run, and the rank of this process on it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return os.environ["GROUP_RANK"], int(os.environ["LOCAL_RANK"])
    return os.environ.get("SLURM_NODEID", "0"), int(os.environ.get("SLURM_LOCALID", 0))


def is_slurm() -> bool:
    """Return whether this process is a task of a SLURM job, by the rule that Lightning uses."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def is_requeued() -> bool:
    """Return whether this is a SLURM job that was taken off its machine and queued again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requested_trainer(cfg: DictConfig) -> Mapping[str, Any]:
    """Return the trainer's settings; a resumed run keeps those in its folder."""
    if cfg.resume is not None:
        path = Path(cfg.resume)
        file = (path.parent.parent if path.is_file() else path) / "config.yaml"
        if file.is_file():
            with suppress(Exception):  # whatever is wrong with it is said where the run is resumed
                return dict(OmegaConf.load(file).trainer)
    return cfg.trainer


def lightning_starts_processes(trainer: Mapping[str, Any]) -> bool:
    """Return whether the strategy makes Lightning copy this process, so that thaw must not start any."""
    strategy = trainer.get("strategy", "auto")
    name = strategy if isinstance(strategy, str) else str(strategy.get("start_method"))
    return any(method in name for method in ("spawn", "fork", "notebook"))


def count_devices(trainer: Mapping[str, Any]) -> int:
    """Count the devices on this machine; `trainer.devices` may be 2, [0, 1], "0,1", -1 or "auto", as for Lightning."""
    devices = trainer.get("devices", "auto")
    if str(devices) in ("auto", "-1"):
        if trainer.get("accelerator", "auto") not in ("auto", "gpu", "cuda"):
            return 1
        import torch  # here, because `--help` must not wait for it

        return max(torch.cuda.device_count(), 1)
    if isinstance(devices, str) and "," in devices:
        devices = [device for device in devices.split(",") if device.strip()]
    return int(devices) if isinstance(devices, (int, str)) else len(devices)
