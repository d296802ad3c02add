"""What the optimizer uses at each step, under every schedule and plan of conf/, against forms written here anew."""

from collections.abc import Callable
from itertools import product
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from tests.conftest import CHOICES, NOISE, TINY, watched
from thaw.train import train

SCHEDULES, PLANS = sorted(CHOICES["schedule"]), sorted(CHOICES["freezing"])

SHORT = {
    "bitfit": (["freezing.epochs=4"], [(4, 1.0)]),
    "chain_thaw": (["freezing.epochs_per_stage=1"], [(1, 1.0)] * 5),
    "full": (["freezing.epochs=4"], [(4, 1.0)]),
    "gradual": (["freezing.epochs_per_stage=1"], [(1, 1.0)] * 4),
    "head_only": (["freezing.epochs=3"], [(3, 1.0)]),
    "norms": (["freezing.epochs=4"], [(4, 1.0)]),
    "phases": ([], [(3, 1.0), (9, 0.5)]),
    "probe_then_full": (["freezing.epochs=7", "freezing.probe_epochs=3"], [(3, 1.0), (4, 0.5)]),
    "surgical": (["freezing.train=[stem,head]", "freezing.epochs=4"], [(4, 1.0)]),
}
"""Of each plan: what keeps it short, and (epochs, lr_scale) of its phases for a network of four stages."""
SHAPES = {
    "constant": (),
    "one_cycle": (),
    "warmup_cosine": ("schedule.warmup_fraction=0.3", "schedule.final_factor=0.1"),
}
"""Of each schedule: numbers with which each part of it is seen."""
BATCHES = 4


def test_every_schedule_and_every_plan_is_here() -> None:
    assert set(SCHEDULES) == set(SHAPES), "a new schedule: write its form into `factors`"
    assert set(PLANS) == set(SHORT), "a new plan: write down its phases"


def factors(cfg: DictConfig, steps: int) -> list[float]:
    """Of the base rate at each step of a phase that lasts so many."""
    name, choices = cfg.schedule._target_.rsplit(".", 1)[-1], cfg.schedule
    if name == "constant":
        return [1.0] * steps
    if name == "warmup_cosine":  # a line from 0, one step before the first, to 1; then half a period of a cosine
        rise = int(choices.warmup_fraction * steps)
        line = [(step + 1) / (rise + 1) for step in range(rise)]
        wave = [cos(pi / 2 * step / (steps - rise)) ** 2 for step in range(steps - rise)]
        return line + [choices.final_factor + (1 - choices.final_factor) * height for height in wave]
    assert name == "one_cycle"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=steps,
        pct_start=choices.warmup_fraction,
        div_factor=1 / choices.start_factor,
        final_div_factor=choices.start_factor / choices.final_factor,
        cycle_momentum=False,
    )
    found = [scheduler.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


class Rates(Callback):
    """What the optimizer is about to use; ends the run where epoch `until` would begin."""

    def __init__(self, until: int | None = None):
        self.until = until
        self.seen: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.until:
            raise InterruptedError

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.seen.append({group["name"]: group["lr"] for group in optimizer.param_groups})


CASES = [
    pytest.param(plan, schedule, accumulated, marks=() if accumulated == 1 and is_usual else pytest.mark.run)
    for plan, schedule, accumulated in product(PLANS, SCHEDULES, (1, 3))
    for is_usual in [plan == "probe_then_full" or (schedule == "warmup_cosine" and plan in ("gradual", "phases"))]
]


@pytest.mark.parametrize(("plan", "schedule", "accumulated"), CASES)
def test_every_rate_is_its_closed_form_at_every_optimizer_step(
    config: Callable[..., DictConfig], tmp_path: Path, plan: str, schedule: str, accumulated: int
) -> None:
    choices, phases = SHORT[plan]
    cfg = config(
        *TINY,
        *NOISE,
        f"data.batch_size={-(-42 // BATCHES)}",
        f"freezing={plan}",
        *choices,
        f"schedule={schedule}",
        *SHAPES[schedule],
        f"trainer.accumulate_grad_batches={accumulated}",
        "optimizer.lr=0.01",
        "optimizer.backbone_lr_scale=0.5",
        "optimizer.lr_decay=0.8",
        "callbacks.early_stopping=null",
        "callbacks.checkpoint.last_every_seconds=0",
    )
    base = {"head": 0.01, "layer2": 0.01 * 0.5 * 0.8, "layer1": 0.01 * 0.5 * 0.8**2, "stem": 0.01 * 0.5 * 0.8**3}
    per_epoch = ceil(BATCHES / accumulated)
    expected = [scale * factor for epochs, scale in phases for factor in factors(cfg, epochs * per_epoch)]

    boundary = sum(epochs for epochs, _ in phases) // 2
    first, second = Rates(until=boundary), Rates()
    with watched(first), pytest.raises(InterruptedError):
        train(cfg)
    with watched(second):
        train(config(f"resume={tmp_path / 'run'}"))

    seen = [*first.seen, *second.seen]
    assert len(first.seen) == boundary * per_epoch
    assert len(seen) == len(expected)
    for step, (rates, factor) in enumerate(zip(seen, expected, strict=True)):
        assert rates == pytest.approx(
            {f"{stage}/{kind}": rate * factor for stage, rate in base.items() for kind in ("decay", "no_decay")}
        ), f"step {step}"
