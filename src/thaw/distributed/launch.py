"""Starts the processes of a run on this machine, one a device, and ends them together.

Not by Lightning: its children outlive an error of the first process, each composes a run folder of its own, and under
-m they would repeat the whole sweep. Where torchrun or srun started the processes, nothing is left to do here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from thaw.distributed.environment import (
    FAILURE_VARIABLE,
    PARENT_VARIABLE,
    asked_trainer,
    copies_process,
    count_devices,
    is_slurm,
    launched_rank,
)
from thaw.errors import UserError
from thaw.sweeping.trials import METRICS_FILE

GRACE_SECONDS = 5
"""After one process failed the others may say their last words."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
"""Handed on to the processes of the run, which end by themselves."""


class ProcessesFailedError(Exception):
    """What the first process to fail said.

    `traceback_printed`: it has printed a traceback, so nothing is to be added. `code`: the exit code of the command.
    """

    def __init__(self, message: str, traceback_printed: bool = False, code: int = 1):
        super().__init__(message)
        self.traceback_printed, self.code = traceback_printed, code


def starts_processes(cfg: DictConfig) -> bool:
    """Whether this command is to start the processes that its trainer asks for. Raises UserError where it cannot."""
    trainer = asked_trainer(cfg)
    if copies_process(trainer):
        return False
    nodes, found = trainer.get("num_nodes", 1), launched_rank()
    if found is not None and not (found == (0, 1) and nodes == 1 and is_slurm()):  # a job of one task may start its own
        if HydraConfig.get().mode == RunMode.MULTIRUN and found != (0, 1):
            raise UserError(
                "-m starts the processes of each trial itself: type python -m thaw.train -m ..., no torchrun"
            )
        return False
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        raise UserError(
            f"trainer.num_nodes={nodes}: start the processes of all nodes by srun or torchrun (docs/distributed.md), "
            f"or this command on each node with MASTER_ADDR, MASTER_PORT and NODE_RANK set"
        )
    return count_devices(trainer) * nodes > 1


def run_in_processes(cfg: DictConfig) -> dict[str, float]:
    """The run of this command line, or of this trial of a sweep; gives a trial's metrics.

    Raises ProcessesFailedError where one of them fails.
    """
    hydra_config = HydraConfig.get()
    trial = Path(hydra_config.runtime.output_dir) if hydra_config.mode == RunMode.MULTIRUN else None
    words = sys.argv[1:] if trial is None else _words_of_trial(hydra_config, trial)
    trainer = asked_trainer(cfg)
    here, nodes = count_devices(trainer), trainer.get("num_nodes", 1)
    with tempfile.TemporaryDirectory() as folder:
        failure = Path(folder) / "failure.json"
        common = {
            "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
            # What a shell or another run left there is of use on several machines only.
            "MASTER_PORT": os.environ["MASTER_PORT"] if nodes > 1 else str(free_port()),
            # To Lightning: it is not SLURM that starts them.
            **({"SLURM_JOB_NAME": "interactive"} if is_slurm() else {}),
            "NODE_RANK": os.environ.get("NODE_RANK", "0"),
            "WORLD_SIZE": str(here * nodes),
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # no C++ stack of who lost whom
            FAILURE_VARIABLE: str(failure),
            PARENT_VARIABLE: str(os.getpid()),
        }
        first = int(common["NODE_RANK"]) * here
        places = [{"LOCAL_RANK": str(local), "RANK": str(first + local)} for local in range(here)]
        _run_together([sys.executable, "-m", "thaw.train", *words], [{**common, **own} for own in places], failure)
    return {} if trial is None else json.loads((trial / METRICS_FILE).read_text())["metrics"]


def _run_together(command: Sequence[str], variables: Sequence[Mapping[str, str]], failure: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _signals_for(processes) as received:
            for own in variables:
                # A session of its own: Ctrl-C comes to this process, and from here to them once.
                processes.append(subprocess.Popen(command, env={**os.environ, **own}, start_new_session=True))
            codes = _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if not any(codes):
        return
    if received:  # they have saved, and said so, if there was anything to save
        sys.exit(next((128 + number for number in received if 128 + number in codes), 128 + received[-1]))
    if failure.exists():
        said = json.loads(failure.read_text())
        raise ProcessesFailedError(said["message"], said["traceback_printed"])
    number, code = next((number, code) for number, code in enumerate(codes) if code)
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise ProcessesFailedError(f"process {number + 1} of the {len(codes)} on this machine {ended}", code=max(code, 1))


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Until all have ended well, or one has not; gives their exit codes as far as they had ended of themselves."""
    while True:
        codes = [process.poll() for process in processes]
        if any(codes):
            break
        if None not in codes:
            return codes
        time.sleep(0.05)
    failed = [code if code else None for code in codes]  # the others are ended, and not to be blamed
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and None in [process.poll() for process in processes]:
        time.sleep(0.05)
    return failed


@contextmanager
def _signals_for(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Gives those that came."""
    received: list[int] = []

    def hand_on(number: int, frame: Any) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup, and jobs behind &
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words_of_trial(hydra_config: Any, folder: Path) -> list[str]:
    """What to type for one trial of a sweep alone."""
    words = [word for word in hydra_config.overrides.hydra if word.startswith("hydra.searchpath=")]
    for source in hydra_config.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", source.path]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [
        *words,
        "--config-name",
        hydra_config.job.config_name,
        *hydra_config.overrides.task,
        f"run_folder='{quoted}'",
    ]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
