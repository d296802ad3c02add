"""Signals that ask a run to stop: it saves, and leaves."""

import logging
import os
import signal
import subprocess
import threading
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, NoReturn

from thaw.distributed.ranks import ranks

if TYPE_CHECKING:
    from lightning import Trainer

log = logging.getLogger(__name__)

REQUEUES = getattr(signal, "SIGUSR1", None)  # Windows has none


class Stopped(SystemExit):
    """The run was asked to stop, has saved where it is, and leaves. The exit code is 128 + the signal, as in shells."""


class StopSignals(ContextDecorator):
    """SIGTERM, and SIGUSR1, which a cluster sends before it takes a machine away (`#SBATCH --signal=USR1@90`): then the
    job is queued again, last of all.

    While something trains, a signal is noted, and met where the run can be saved. Before and after it ends the run at
    once: nothing would be lost.
    """

    def __init__(self) -> None:
        self.defers = False
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.defers, self._received = False, None
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, *([] if REQUEUES is None else [REQUEUES])]
            self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.defers = True  # being queued again is another signal
        if isinstance(error, Stopped) and error.code == 128 + (REQUEUES or 0) and ranks().is_first:
            _requeue()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    @property
    def received(self) -> bool:
        return self._received is not None

    def received_by_any(self, trainer: "Trainer") -> bool:
        """Of the ranks; the same on all of them."""
        return trainer.strategy.reduce_boolean_decision(self.received, all=False)

    def stop(self, trainer: "Trainer") -> NoReturn:
        """Raises Stopped, on all ranks."""
        requeues = trainer.strategy.reduce_boolean_decision(self.received and self._received == REQUEUES, all=False)
        number = REQUEUES if requeues and REQUEUES is not None else signal.SIGTERM
        if trainer.is_global_zero:
            name, folder = signal.Signals(number).name, trainer.default_root_dir
            log.info("%s: stopped in epoch %d. To go on: resume=%s", name, trainer.current_epoch, folder)
        ranks().leave()
        raise Stopped(128 + number if trainer.is_global_zero else 0)  # one process says how it ended

    def _note(self, number: int, frame: Any) -> None:
        if self._received != REQUEUES or REQUEUES is None:  # SIGTERM may follow it
            self._received = number
        if not self.defers:
            raise Stopped(128 + number)


signals = StopSignals()
"""Of this process."""


def _requeue() -> None:
    job = os.environ.get("SLURM_JOB_ID")
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if job is None:
        return
    job = f"{array}_{task}" if array and task else job
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("the job is not queued again: scontrol requeue %s failed (%s)", job, error)
