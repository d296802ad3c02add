"""Starts the processes of a run on this machine, one per device, with the launcher behind torchrun.

Lightning's own launcher is not used: its children outlive an error of the first process, each would compose its own run
folder, and under `-m` each would repeat the whole sweep.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw.arguments import for_hydra
from thaw.distributed.environment import (
    count_devices,
    is_slurm,
    launched_rank,
    lightning_starts_processes,
    requested_trainer,
)
from thaw.errors import UserError

# Signals that the command passes on to the processes of its run, which then end by themselves.
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
# How long a run may take to save after a signal, before it is killed.
SHUTDOWN_SECONDS = 24 * 3600


class ProcessesFailedError(Exception):
    """A process of the run failed, and all others were ended.

    Attributes:
        printed: whether that process has printed the error already.
        code: exit code for the command.
    """

    def __init__(self, message: str, printed: bool = False, code: int = 1):
        super().__init__(message)
        self.printed, self.code = printed, code


def starts_processes(cfg: DictConfig) -> bool:
    """Return whether this command has to start the processes that its trainer asks for.

    Raises UserError if it cannot.
    """
    trainer = requested_trainer(cfg)
    if lightning_starts_processes(trainer):
        return False
    nodes, rank_and_size = trainer.get("num_nodes", 1), launched_rank()
    # A SLURM job of one task may start processes of its own.
    if rank_and_size is not None and not (rank_and_size == (0, 1) and nodes == 1 and is_slurm()):
        if HydraConfig.get().mode == RunMode.MULTIRUN and rank_and_size != (0, 1):
            raise UserError(
                "-m starts the processes of each trial itself: type python -m thaw.train -m ..., without torchrun"
            )
        return False
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        raise UserError(
            f"trainer.num_nodes={nodes}: start the processes of all nodes by srun or torchrun (docs/distributed.md), "
            f"or this command on each node with MASTER_ADDR, MASTER_PORT and NODE_RANK set"
        )
    return count_devices(trainer) * nodes > 1


def run_in_processes(cfg: DictConfig) -> None:
    """Run this command line, or this trial of a sweep, in several processes until all have ended.

    Raises ProcessesFailedError if one of them fails, and SystemExit after a signal.
    """
    hydra_config = HydraConfig.get()
    arguments = _trial_arguments(hydra_config) if hydra_config.mode == RunMode.MULTIRUN else sys.argv[1:]
    trainer = requested_trainer(cfg)
    start(["-m", "thaw.train", *arguments], count_devices(trainer), trainer.get("num_nodes", 1))


def start(arguments: Sequence[str], num_processes: int, num_nodes: int = 1) -> None:
    """Run `python <arguments>` in `num_processes` processes on this machine, as torchrun does; see run_in_processes."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no C++ stack traces about lost connections
    # Imported here, because `--help` must not wait for torch.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.utils.distributed import get_free_port
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launcher_log = logging.getLogger("torch.distributed.elastic")
    launcher_log.addHandler(logging.NullHandler())
    launcher_log.propagate = False  # thaw prints one error itself
    address = f"127.0.0.1:{get_free_port()}"
    if num_nodes > 1:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    with tempfile.TemporaryDirectory() as folder, _restoring_handlers() as signals:
        config = LaunchConfig(
            min_nodes=num_nodes,
            max_nodes=num_nodes,
            nproc_per_node=num_processes,
            logs_specs=DefaultLogsSpecs(folder),
            run_id="thaw",
            rdzv_backend="static",
            rdzv_endpoint=address,
            rdzv_configs={"rank": int(os.environ["NODE_RANK"]) if num_nodes > 1 else 0},
            max_restarts=0,
            signals_to_handle=",".join(signals),
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except SignalException as error:  # the processes have saved and said so, if there was anything to save
            while isinstance(error.__context__, SignalException):
                error = error.__context__  # SLURM sends SIGTERM some time after SIGUSR1
            sys.exit(128 + error.sigval)
        except ChildFailedError as error:
            _, first = error.get_first_failure()
            raise _failure(Path(folder), first.local_rank, num_processes, first.exitcode) from None


def _failure(folder: Path, local_rank: int, num_processes: int, code: int) -> ProcessesFailedError:
    """Return the error to raise. In `folder` the process that reports the failure, if any, left its message."""
    for file in folder.rglob("error.json"):
        return ProcessesFailedError(json.loads(file.read_text())["message"], printed=True)
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = f"process {local_rank + 1} of the {num_processes} on this machine {ended}"
    return ProcessesFailedError(message, code=max(code, 1))


@contextmanager
def _restoring_handlers() -> Iterator[list[str]]:
    """Yield the names of SIGNALS to handle, and afterwards undo what torch's launcher installed for them."""
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)}
    # nohup, and shells for background jobs, have some signals ignored.
    handlers = {name: handler for name, handler in handlers.items() if handler != signal.SIG_IGN}
    try:
        yield list(handlers)
    finally:
        if threading.current_thread() is threading.main_thread():
            for name, handler in handlers.items():
                signal.signal(getattr(signal, name), handler)


def _trial_arguments(hydra_config: Any) -> list[str]:
    """Return the command line that runs one trial of a sweep by itself, in the trial's folder."""
    arguments = [override for override in hydra_config.overrides.hydra if override.startswith("hydra.searchpath=")]
    for source in hydra_config.runtime.config_sources:
        if source.provider == "command-line":
            arguments += ["--config-dir", source.path]
    arguments += ["--config-name", hydra_config.job.config_name]
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task)  # unresolved, that is as typed
    return [*arguments, *overrides, for_hydra("run_folder", hydra_config.runtime.output_dir)]
