"""The line that is printed after each epoch."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, Timer

from tests.finetuning.test_phase import STAGES, plan_of
from thaw.finetuning.plans import probe_then_full
from thaw.training.epoch_lines import epoch_line, reason_of_end

PLAN = plan_of(probe_then_full(STAGES, epochs=100, probe_epochs=2))
METRICS = {"loss/train": 0.5, "loss/val": 0.25, "accuracy/val": 0.75, "plan/trainable_parameters": 1290.0, "other": 1.0}


def stopping(epochs_without_gain: int) -> EarlyStopping:
    callback = EarlyStopping("loss/val", patience=2)
    callback.wait_count = epochs_without_gain
    return callback


def test_a_line_says_what_trains_how_well_and_how_long_it_will_take() -> None:
    line = epoch_line(PLAN, 9, METRICS, "accuracy/val", 0.8, 2.4e-3, 61.0)
    assert line == (
        "epoch  10/100  phase 2/2  1,290 trained  lr 2.4e-03  loss/train 0.5000  loss/val 0.2500  "
        "accuracy/val 0.7500  best 0.8000  1:31:30 left"
    )


def test_the_time_of_later_phases_is_unknown_and_the_last_epoch_leaves_none() -> None:
    assert epoch_line(PLAN, 0, {}, "loss/val", None, 1.0, 3.4) == "epoch   1/100  phase 1/2  lr 1.0e+00  0:03+ left"
    assert epoch_line(PLAN, 99, {}, "loss/val", None, 1.0, 3.0) == "epoch 100/100  phase 2/2  lr 1.0e+00"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"fast_dev_run": True}, ""),
        ({}, "a callback has asked for it"),
        ({"max_steps": 10}, "trainer.max_steps=10"),
        ({"callbacks": [stopping(2)]}, "early stopping, loss/val has not become better for 2 epochs"),
        ({"callbacks": [stopping(1)]}, "a callback has asked for it"),
        ({"callbacks": [Timer(duration=timedelta(0))]}, "trainer.max_time is over"),
    ],
)
def test_the_reason_of_an_early_end(state: dict[str, Any], reason: str) -> None:
    trainer = SimpleNamespace(**{"fast_dev_run": False, "callbacks": [], "max_steps": -1, "global_step": 10, **state})
    assert reason_of_end(trainer) == reason
