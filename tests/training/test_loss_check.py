"""Losses that are not finite: noticed without waiting for the device, and before a checkpoint is written."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import NOISE, TINY, watched
from thaw.errors import NonFiniteLossError
from thaw.replaying.kit import find_kit, read_kit
from thaw.tasks.single_label import SingleLabel
from thaw.train import train
from thaw.training import loss_check
from thaw.training.loss_check import BATCHES_HELD, LossCheck
from thaw.types import Batch

Config = Callable[..., DictConfig]


class SlowCopy:
    """An event of a device that has reported nothing until it is waited for."""

    def __init__(self) -> None:
        self.happened = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[SlowCopy]:
    """Losses are copied as if they were on a slow accelerator; holds the event of each copy."""
    events: list[SlowCopy] = []

    def copy(flag: Tensor) -> tuple[Tensor, Any]:
        events.append(SlowCopy())
        return flag, events[-1]

    monkeypatch.setattr(loss_check, "copy_to_host", copy)
    return events


def batch(number: int) -> Batch:
    return Batch(torch.full((2, 1), float(number)), torch.zeros(2, dtype=torch.long), torch.arange(2) + 2 * number)


def test_on_a_cpu_a_loss_is_known_at_once() -> None:
    check = LossCheck()
    for number, loss in enumerate([1.0, torch.inf, torch.nan]):
        check.add("train", number, batch(number), torch.tensor(loss))
        assert (check.failed is None) == (number == 0)
    assert check.failed is not None
    assert (check.failed.number, check.failed.split, check.failed.batch_idx) == (1, "train", 1)


def test_a_loss_that_is_reported_late_comes_with_its_batch_if_it_is_one_of_the_last(copies: list[SlowCopy]) -> None:
    check = LossCheck()
    for number in range(10):
        check.add("train", number, batch(number), torch.tensor(torch.nan if number >= 10 - BATCHES_HELD else 0.0))
    assert check.look(wait=False) is None
    copies[0].happened = True
    assert check.look(wait=False) is None
    step = check.look(wait=True)
    assert step is not None
    assert step.batch is not None
    assert step.number == step.batch_idx == 10 - BATCHES_HELD
    assert step.samples.tolist() == step.batch.index.tolist()


def test_a_batch_is_given_up_if_the_device_is_far_behind(copies: list[SlowCopy]) -> None:
    check = LossCheck()
    for number in range(10):
        check.add("val", number, batch(number), torch.tensor(torch.nan if number == 2 else 0.0))
    step = check.look(wait=True)
    assert step is not None
    assert (step.batch, step.batch_idx, step.samples.tolist()) == (None, 2, [4, 5])


@pytest.fixture
def nan_in_epoch_1_batch_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of one training step is NaN, which makes all weights NaN from then on; an epoch has five batches."""
    loss, steps = SingleLabel.loss, iter(range(1000))

    def failing(self: SingleLabel, logits: Tensor, target: Tensor) -> Tensor:
        is_due = torch.is_grad_enabled() and next(steps) == 5 + 2
        return loss(self, logits, target) * (torch.nan if is_due else 1)

    monkeypatch.setattr(SingleLabel, "loss", failing)


@pytest.mark.parametrize("every_minutes", ["0", "null"])
def test_no_checkpoint_is_written_after_such_a_loss_however_late_it_is_reported(
    config: Config, tmp_path: Path, copies: list[SlowCopy], nan_in_epoch_1_batch_2: None, every_minutes: str
) -> None:
    often = (f"callbacks.checkpoint.every_minutes={every_minutes}", "callbacks.checkpoint.last_every_seconds=0")
    choices = (*TINY, *NOISE, "freezing=full", "freezing.epochs=3", "data.batch_size=10", "caching=off", *often)
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 1, train batch 2 \(phase 1 of 1"):
        train(config(*choices))
    files = sorted((tmp_path / "run/checkpoints").glob("*.ckpt"))
    assert files
    for file in files:
        state = torch.load(file, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())
    kit = read_kit(find_kit(tmp_path / "run", None))
    assert kit.batch is not None, "the batch is one of the last"
    assert (kit.epoch, kit.batch_idx) == (1, 2)


class NoWaiting(TorchDispatchMode):
    """Raises an error where the host asks for the value of a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a step waits for the device")
        return func(*args, **(kwargs or {}))


class StepsWithoutWaiting(Callback):
    """Lets no batch of a run ask for values of tensors, from its transfer on until all callbacks have had it."""

    def __init__(self) -> None:
        self.mode: NoWaiting | None = None
        self.steps: Counter[str] = Counter()

    def enter(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.mode = NoWaiting()
        self.mode.__enter__()
        self.steps[trainer.state.stage.value] += 1  # type: ignore[union-attr]

    def leave(self, *args: Any, **kwargs: Any) -> None:
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
        self.mode = None

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = enter
    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_exception = leave


WITHOUT_WAITING = (*TINY, *NOISE, "freezing=full", "freezing.epochs=4", "data.batch_size=8", "optimizer=sgd")
"""24 steps. AdamW counts its steps in tensors of host memory, which look here as if they were of a device."""


@pytest.mark.parametrize("callbacks", ["default", "ema"])
def test_no_step_asks_for_the_value_of_a_tensor(config: Config, copies: list[SlowCopy], callbacks: str) -> None:
    guard = StepsWithoutWaiting()
    with watched(guard):
        train(config(f"callbacks={callbacks}", *WITHOUT_WAITING))
    assert guard.steps["train"] == 24
    assert guard.steps["validate"] > 4
    assert guard.steps["test"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("callbacks", ["default", "ema"])
def test_no_step_waits_for_a_gpu(config: Config, monkeypatch: pytest.MonkeyPatch, callbacks: str) -> None:
    guard = StepsWithoutWaiting()
    enter, leave = (partial(torch.cuda.set_sync_debug_mode, mode) for mode in ("error", "default"))
    monkeypatch.setattr(NoWaiting, "__enter__", lambda self: enter())
    monkeypatch.setattr(NoWaiting, "__exit__", lambda self, *args: leave())
    with watched(guard):
        train(config(f"callbacks={callbacks}", *WITHOUT_WAITING, "trainer.accelerator=gpu", "optimizer=adamw"))
    assert guard.steps["train"] == 24
