"""Signals that ask a run to stop: it saves, and leaves."""

import logging
import os
import signal
import subprocess
import threading
from typing import Any, NoReturn

from lightning import Trainer

from thaw.distributed.ranks import ranks

log = logging.getLogger(__name__)


class Stopped(SystemExit):
    """The run was asked to stop, has saved where it is, and leaves. The exit code is 128 + the signal, as in shells."""


class StopSignals:
    """SIGTERM, and SIGUSR1, which clusters send before they take a machine away (`#SBATCH --signal=USR1@90`): such a
    job is queued again, and then goes on."""

    def __init__(self) -> None:
        self._received: int | None = None

    @property
    def received(self) -> bool:
        return self._received is not None

    def received_by_any(self, trainer: Trainer) -> bool:
        """Of the ranks; the same on all of them."""
        return trainer.strategy.reduce_boolean_decision(self.received, all=False)

    def watch(self, trainer: Trainer) -> None:
        """In place of Lightning's own handlers, which leave without saving, or save elsewhere. It restores those that
        were there before when training is over."""
        if trainer.received_sigterm:
            self._received = signal.SIGTERM
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGUSR1", None)):  # Windows lacks one
                if number is not None:
                    signal.signal(number, self._note)

    def leave(self, trainer: Trainer) -> NoReturn:
        """Raises Stopped, on all ranks."""
        number = trainer.strategy.broadcast(self._received) or signal.SIGTERM
        if not trainer.is_global_zero:
            ranks().leave()
            raise Stopped(0)  # one process says how it ended
        name, folder = signal.Signals(number).name, trainer.default_root_dir
        log.info("%s: saved in epoch %d, stopped. To go on: resume=%s", name, trainer.current_epoch, folder)
        if number != signal.SIGTERM and (job := os.environ.get("SLURM_JOB_ID")):
            _requeue(job)
        ranks().leave()
        raise Stopped(128 + number)

    def _note(self, number: int, frame: Any) -> None:
        self._received = number


def _requeue(job: str) -> None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else job
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("the job is not queued again: scontrol requeue %s failed (%s)", job, error)
