"""The moments at which torture.py kills a run. A kill is a picklable object that the training process installs."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count
from threading import Timer
from typing import Any

MOMENTS = (
    "at the start",
    "inside an epoch",
    "twice inside an epoch",
    "while a checkpoint is written",
    "one step before a phase change",
    "one step after a phase change",
    "in validation",
    "while the cache is filled",
)
EPOCHS, BATCHES = 7, 5
"""Epochs of a run, and its batches per epoch: 66 training samples in batches of up to 16."""
PHASE_STARTS = (2, 3, 4, 5)
"""First epochs of the phases but the first."""
HOOKS = ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end")


def kill() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class AfterSeconds:
    """Kills after some seconds."""

    seconds: float

    def install(self) -> None:
        """Start the clock."""
        timer = Timer(self.seconds, kill)
        timer.daemon = True
        timer.start()


@dataclass(frozen=True)
class InBatch:
    """Kills in a hook of Lightning."""

    hook: str
    epoch: int
    batch: int | None
    """Number of the training batch; None for the first call in the epoch, as for hooks of validation."""

    def install(self) -> None:
        """Add a callback to those of the run."""
        from lightning import Callback, Trainer

        from thaw.config import trainers

        moment, callbacks = self, trainers.callbacks

        def hook(callback: Any, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            at = trainer.current_epoch, None if moment.batch is None else trainer.fit_loop.batch_idx
            if at == (moment.epoch, moment.batch) and not trainer.sanity_checking:
                kill()

        killer = type("Killer", (Callback,), {self.hook: hook})
        trainers.callbacks = lambda *arguments: [*callbacks(*arguments), killer()]


@dataclass(frozen=True)
class InCall:
    """Kills before a call of one of some functions."""

    module: str
    """Name of the module through which the functions are called."""
    names: tuple[str, ...]
    """Names of the functions there: `function`, or `Class.method`."""
    number: int
    """How many calls are made before."""

    def install(self) -> None:
        """Replace the functions by ones that count."""
        from importlib import import_module

        calls = count()
        for name in self.names:
            *owners, attribute = name.split(".")
            owner = reduce(getattr, owners, import_module(self.module))
            setattr(owner, attribute, self._counted(getattr(owner, attribute), calls))

    def _counted(self, function: Callable[..., Any], calls: Iterator[int]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == self.number:
                kill()
            return function(*args, **kwargs)

        return counted


def kill_at(moment: str, generator: random.Random) -> Iterator[Any]:
    """Draw the kill for one of MOMENTS; two in turn for "twice inside an epoch"."""
    epoch, batch = generator.randrange(EPOCHS), generator.randrange(BATCHES)
    if moment == "at the start":
        yield AfterSeconds(generator.uniform(0.0, 1.0))
    elif moment == "inside an epoch":
        yield InBatch(generator.choice(HOOKS), epoch, batch)
    elif moment == "twice inside an epoch":
        first = generator.randrange(1, BATCHES - 1)
        yield InBatch(generator.choice(HOOKS), epoch, first)
        yield InBatch(generator.choice(HOOKS), epoch, generator.randrange(first + 1, BATCHES))
    elif moment == "while a checkpoint is written":
        steps = ("_HashingFile.write", "_write_manifest", "os.replace", "_sync_folder", "_publish")
        yield InCall("thaw.training.checkpoint_io", steps, generator.randrange(1000))
    elif moment == "one step before a phase change":
        yield InBatch(generator.choice(HOOKS), generator.choice(PHASE_STARTS) - 1, BATCHES - 1)
    elif moment == "one step after a phase change":
        yield InBatch(generator.choice(HOOKS), generator.choice(PHASE_STARTS), 1)
    elif moment == "in validation":
        yield InBatch("on_validation_batch_end", epoch, None)
    elif moment == "while the cache is filled":
        yield InCall("thaw.caching.prefix", ("to_rows",), generator.randrange(1, 4))
