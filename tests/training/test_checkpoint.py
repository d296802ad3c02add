"""Runs that end at any moment and go on."""

import csv
import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import TINY
from tests.killing import killed
from tests.test_train import THREE_PHASES, assert_same
from thaw.train import train
from thaw.training import checkpoint
from thaw.training.checkpoint import MOST_BATCHES, RunCheckpoint, batches_to_next_look

Config = Callable[..., DictConfig]

OFTEN = "callbacks.checkpoint.every_minutes=0"
RUN = (*TINY, *THREE_PHASES, OFTEN, "trainer.log_every_n_steps=1")
STATE = ("state_dict", "optimizer_states", "lr_schedulers", "order", "global_step", "epoch")


def ended(run: Path) -> dict[str, Any]:
    """All that a run leaves, comparable."""
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    results = json.loads((run / "metrics.json").read_text())
    found = {name: last[name] for name in (*STATE, "current_model_state", "averaging_state") if name in last}
    return {
        **found,
        "callbacks": last["callbacks"],
        "rows": list(csv.reader((run / "metrics.csv").read_text().splitlines())),
        "results": {**results, "seconds": 0},
    }


def in_run_tier(*choices: str) -> Any:
    """A case that is left out of the default tier."""
    return pytest.param(choices, marks=pytest.mark.run)


@pytest.mark.parametrize(
    "choices",
    [
        in_run_tier(),
        ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5", "callbacks=ema"),
        in_run_tier("mixing=mixup", "caching=off", "data.balance=sampler", "optimizer=sgd"),
        in_run_tier("+trainer.val_check_interval=2"),
    ],
)
def test_a_run_killed_anywhere_ends_as_if_nothing_had_happened(
    config: Config, tmp_path: Path, choices: tuple[str, ...]
) -> None:
    train(config(*choices, *RUN, f"run_folder={tmp_path}/whole"))
    for point in [(0, 0), (0, 3), (1, 2), (2, 1), (5, None)]:
        run = tmp_path / f"{point[0]}_{point[1]}"
        with killed(*point):
            train(config(*choices, *RUN, f"run_folder={run}"))
        train(config(*choices, *RUN, f"run_folder={run}") if point == (0, 0) else config(f"resume={run}"))
        assert_same(ended(run), ended(tmp_path / "whole"))


@pytest.mark.run
def test_a_run_may_be_killed_twice_in_one_epoch(config: Config, tmp_path: Path) -> None:
    train(config(*RUN, f"run_folder={tmp_path}/whole"))
    run = tmp_path / "run"
    with killed(3, 1):
        train(config(*RUN))
    for batch in (2, 3):
        with killed(3, batch):
            train(config(f"resume={run}"))
    train(config(f"resume={run}"))
    assert_same(ended(run), ended(tmp_path / "whole"))


@pytest.mark.parametrize(("batch_seconds", "batches"), [(0.0, MOST_BATCHES), (0.05, 10), (0.4, 1), (9, 1), (inf, 1)])
def test_processes_look_together_about_twice_a_second(batch_seconds: float, batches: int) -> None:
    assert batches_to_next_look(batch_seconds) == batches


def test_processes_do_not_look_together_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(checkpoint, "largest", lambda trainer, *values: [0, 0, 0.1])
    module = SimpleNamespace(require_finite_losses=lambda wait: looks.append(wait))
    trainer = SimpleNamespace(fast_dev_run=False, accumulate_grad_batches=2, world_size=2)
    callback = RunCheckpoint(1, None)
    callback.on_train_epoch_start(trainer, module)  # type: ignore[arg-type]
    for batch_idx in range(22):
        callback.on_train_batch_start(trainer, module, None, batch_idx)  # type: ignore[arg-type]
    assert looks == [False] * 4  # before batches 2, 8, 14 and 20: where five batches have passed and none accumulates
