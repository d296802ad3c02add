"""Handles signals that ask a run to stop: it saves its state and exits."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ContextDecorator, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from thaw.arguments import for_shell
from thaw.distributed.ranks import ranks

if TYPE_CHECKING:
    from lightning import Trainer

log = logging.getLogger(__name__)

REQUEUE_SIGNAL = getattr(signal, "SIGUSR1", None)
HANG_UP = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed. Windows has neither of the two."""


class Stopped(SystemExit):
    """A signal asked the command to stop; a run has saved its state. The exit code is 128 + signal, as in shells."""


class StopSignals(ContextDecorator):
    """Handles SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1 in a run; use it as a context manager or a decorator.

    Clusters send SIGUSR1 before they take a machine away (`#SBATCH --signal=USR1@90`): the job then queues itself
    again. During training a signal is noted, and the run stops where it can be saved. Before and after training it
    ends at once: nothing would be lost. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self.deferred = False
        """Whether signals are only noted."""
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.deferred, self._received = False, None
        if threading.current_thread() is threading.main_thread():
            numbers = [n for n in (signal.SIGINT, signal.SIGTERM, HANG_UP, REQUEUE_SIGNAL) if n is not None]
            # Shells have SIGINT ignored in commands that they run in the background, nohup SIGHUP.
            heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.deferred = True  # scontrol requeue sends another signal
        if isinstance(error, Stopped) and error.code == 128 + (REQUEUE_SIGNAL or 0) and ranks().is_first:
            _requeue()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    @property
    def received(self) -> bool:
        """Whether this process has received a signal."""
        return self._received is not None

    def stop(self, trainer: "Trainer") -> NoReturn:
        """Raise Stopped. Collective: call on every rank, also on those that received no signal."""
        from thaw.distributed.agree import largest  # here, because `--help` must not wait for torch

        (requeue,) = largest(trainer, self.received and self._received == REQUEUE_SIGNAL)
        number = REQUEUE_SIGNAL if requeue and REQUEUE_SIGNAL is not None else self._received or signal.SIGTERM
        if trainer.is_global_zero:
            name, folder, epochs = signal.Signals(number).name, trainer.default_root_dir, trainer.max_epochs
            epoch = min(trainer.current_epoch + 1, epochs or 1)
            command = f"python -m thaw.train {for_shell('resume', folder)}"
            log.info("%s: saved and stopped in epoch %d of %d. To go on: %s", name, epoch, epochs, command)
        ranks().leave()
        raise Stopped(128 + number if trainer.is_global_zero else 0)  # the first process says how the run ended

    def _handle(self, number: int, frame: Any) -> None:
        if number == self._received == signal.SIGINT and self.deferred:
            raise Stopped(128 + number)  # Lightning would answer a KeyboardInterrupt by exit code 1
        if self._received is None or self._received != REQUEUE_SIGNAL:  # SIGTERM may follow SIGUSR1
            self._received = number
        if not self.deferred:
            log.info("%s: stopped", signal.Signals(number).name)
            raise Stopped(128 + number)
        if number == signal.SIGINT and ranks().is_first:
            log.info("Ctrl-C: saves after this step, then stops. Press it again to stop at once.")


signals = StopSignals()
"""The signals of this process."""


@contextmanager
def leave_on_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end a command by exit code 130, unless it is ignored, as in the background.

    Python would print a traceback, and Lightning leave with exit code 1.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: Any) -> NoReturn:
    log.info("%s: stopped", signal.Signals(number).name)
    raise Stopped(128 + number)


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
