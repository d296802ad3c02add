"""Data and parts that fail at a chosen moment of a run, as a machine does."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from tests.tiny import Noise


class Failing(Noise):
    """Noise; a loader process fails when it reads a sample after so many. The main process never does."""

    def __init__(self, fault: str, after: int = 60) -> None:
        super().__init__()
        self.targets = [index % 3 for index in range(len(self))]
        self.version = "1"
        self.fault, self.left = fault, after

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        if get_worker_info() is not None:
            self.left -= 1
            if self.left == 0:
                fail(self.fault)
        return super().__getitem__(index)


def fail(fault: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "shared memory":
        limit_files(0)
    elif fault == "memory":
        raise MemoryError
    elif fault == "device memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity ...")
    elif fault == "cpu memory":
        torch.empty(2**50)
    elif fault == "full":
        raise OSError(errno.ENOSPC, "No space left on device")


class FailAt(Callback):
    """In the backward pass of a batch, counted over the whole run from 0."""

    def __init__(self, fault: str, step: int = 3):
        self.fault, self.step = fault, step

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if trainer.global_step == self.step:
            fail(self.fault)


class Spoil(Callback):
    """At the beginning of the second epoch a file is gone, or half of it."""

    def __init__(self, file: Path, how: str):
        self.file, self.how = file, how

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            content = self.file.read_bytes()
            self.file.unlink()
            if self.how == "cut":
                self.file.write_bytes(content[: len(content) // 2])


class Full(Callback):
    """From the second epoch on, or when the best weights have been tested, the disk is full."""

    def __init__(self, tested: bool):
        self.tested = tested

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1 and not self.tested:
            limit_files(0)

    def on_test_end(self, *args: Any) -> None:
        limit_files(0)


def limit_files(most_bytes: int) -> None:
    """As on a full disk, files of this process cannot grow beyond that."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def in_fork(
    main: Callable[[], None], *arguments: str, most_bytes: int | None = None, terminal: str | None = None
) -> tuple[int, str]:
    """Exit code and output of a command in a process of its own.

    Its files have at most `most_bytes`, and what it prints to is a terminal if its encoding is given, else a pipe.
    """
    reading, writing = os.pipe() if terminal is None else os.openpty()
    child = os.fork()
    if child == 0:
        code: Any = 99
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=terminal, closefd=False) for number in (1, 2))
            sys.argv = ["thaw", *arguments]
            if most_bytes is not None:
                limit_files(most_bytes)
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    printed = b""
    with suppress(OSError):  # a terminal ends so
        while chunk := os.read(reading, 2**16):
            printed += chunk
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed.decode(errors="replace")
