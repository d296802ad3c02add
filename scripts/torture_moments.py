"""When torture.py kills a run: each moment is a picklable Kill, which the process that trains installs in itself."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
"""Of a run of torture.py: 66 training samples in batches of up to 16."""
PHASE_STARTS = (2, 3, 4, 5)
HOOKS = ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class AfterSeconds:
    seconds: float

    def install(self) -> None:
        timer = Timer(self.seconds, kill)
        timer.daemon = True
        timer.start()


@dataclass(frozen=True)
class InBatch:
    """In this hook of this batch; or of validation, whose first batch has the number of the last one trained."""

    hook: str
    epoch: int
    batch: int | None

    def install(self) -> None:
        from lightning import Callback, Trainer

        from thaw.config import build

        moment, callbacks = self, build.callbacks

        def hook(callback: Any, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            at = trainer.current_epoch, None if moment.batch is None else trainer.fit_loop.batch_idx
            if at == (moment.epoch, moment.batch) and not trainer.sanity_checking:
                kill()

        killer = type("Killer", (Callback,), {self.hook: hook})
        build.callbacks = lambda cfg, plan: [*callbacks(cfg, plan), killer()]


@dataclass(frozen=True)
class InCall:
    """Before the `number`-th call of a function from now on."""

    where: str
    names: tuple[str, ...]
    number: int

    def install(self) -> None:
        from importlib import import_module

        module, left = import_module(self.where), [self.number]
        for name in self.names:
            owner, attribute = module, name
            if "." in name:
                first, attribute = name.split(".")
                owner = getattr(module, first)
            setattr(owner, attribute, _counted(getattr(owner, attribute), left))


def _counted(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            kill()
        return function(*args, **kwargs)

    return counted


def kill_at(moment: str, chance: random.Random) -> Iterator[Any]:
    """One kill, or two in turn."""
    epoch, batch = chance.randrange(EPOCHS), chance.randrange(BATCHES)
    if moment == "at the start":
        yield AfterSeconds(chance.uniform(0.0, 1.0))
    elif moment == "inside an epoch":
        yield InBatch(chance.choice(HOOKS), epoch, batch)
    elif moment == "twice inside an epoch":
        first = chance.randrange(1, BATCHES - 1)
        yield InBatch(chance.choice(HOOKS), epoch, first)
        yield InBatch(chance.choice(HOOKS), epoch, chance.randrange(first + 1, BATCHES))
    elif moment == "while a checkpoint is written":
        steps = ("_HashingFile.write", "_write_manifest", "os.replace", "_sync_folder", "_publish")
        yield InCall("thaw.training.checkpoint_io", steps, chance.randrange(1000))
    elif moment == "one step before a phase change":
        yield InBatch(chance.choice(HOOKS), chance.choice(PHASE_STARTS) - 1, BATCHES - 1)
    elif moment == "one step after a phase change":
        yield InBatch(chance.choice(HOOKS), chance.choice(PHASE_STARTS), 1)
    elif moment == "in validation":
        yield InBatch("on_validation_batch_end", epoch, None)
    elif moment == "while the cache is filled":
        yield InCall("thaw.caching.outputs", ("rows_of",), chance.randrange(1, 4))
