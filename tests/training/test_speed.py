"""Speed and memory of an epoch, by a clock that the test sets."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thaw.training.speed import Speed
from thaw.types import Batch


class Clock:
    """Stands for the module `time`."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class Recorder:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((metrics, step))


def batch(samples: int, start: int = 0) -> Batch:
    return Batch(torch.zeros(samples, 1), torch.zeros(samples), torch.arange(samples), start)


def test_waiting_is_what_lies_between_steps_without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, logger = Clock(), Recorder()
    monkeypatch.setattr("thaw.training.speed.time", clock)
    trainer: Any = SimpleNamespace(loggers=[logger], current_epoch=2, global_step=8)
    speed, module = Speed(), Any
    speed.on_train_epoch_start(trainer, module)
    clock.pass_(1)  # the first batch is waited for
    speed.on_train_batch_start(trainer, module, batch(6, start=3), 0)
    clock.pass_(2)
    speed.on_train_batch_end()
    clock.pass_(5)  # validation inside the epoch
    speed.on_validation_end()
    clock.pass_(1)
    speed.on_train_batch_start(trainer, module, batch(4), 1)
    clock.pass_(1)
    speed.on_train_batch_end()
    clock.pass_(3)  # validation at its end
    speed.on_train_epoch_end(trainer, module)

    ((values, step),) = logger.logged
    assert step == 7
    assert values["epoch"] == 2
    assert values["speed/epoch_seconds"] == 13
    assert values["speed/samples_per_second"] == 10 / 5
    assert values["speed/data_wait"] == 2 / 5
    assert values["speed/cached"] == 6 / 10
    assert 0.05 < values["memory/cpu_gb"] < 1000


def test_an_epoch_that_a_run_resumes_inside_is_not_measured() -> None:
    logger = Recorder()
    trainer: Any = SimpleNamespace(loggers=[logger], current_epoch=2, global_step=8)
    speed = Speed()
    speed.on_train_batch_start(trainer, Any, batch(4), 5)
    speed.on_train_batch_end()
    speed.on_train_epoch_end(trainer, Any)
    assert logger.logged == []
