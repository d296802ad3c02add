"""Learning-rate schedules as closed forms: a factor for a step of a phase. They start again with every phase.

`step` counts optimizer steps from 0 within the phase, `steps` is the phase's length.
"""

from collections.abc import Callable
from math import cos, pi
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thaw.errors import UserError
from thaw.finetuning.phase import Plan

Schedule = Callable[[int, int], float]


def lr_factor(step: int, plan: Plan, schedule: Schedule, steps_per_epoch: int) -> float:
    """What every base rate is multiplied by at optimizer step `step` of the run."""
    epoch = step // steps_per_epoch
    phase = plan.at(epoch)
    return phase.lr_scale * schedule(step - plan.start(epoch) * steps_per_epoch, phase.epochs * steps_per_epoch)


class PhaseSchedule(LRScheduler):
    """Every base rate times the `factor` of the step. As torch's LambdaLR, which asks once for each parameter group."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]):
        self.factor = factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        factor = self.factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Checkpoints hold plain values."""
        return {name: value for name, value in super().state_dict().items() if name != "factor"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The rates that come next follow the plan of now: what was saved at the end of a run knew of no next phase."""
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


def constant(step: int, steps: int) -> float:
    return 1.0


def warmup_cosine(step: int, steps: int, warmup_fraction: float, final_factor: float) -> float:
    """Up in a straight line for `warmup_fraction` of the phase, then down along a half cosine to `final_factor`."""
    _require_fraction("schedule.warmup_fraction", warmup_fraction)
    warmup = int(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _anneal(1.0, final_factor, (step - warmup) / (steps - warmup))


def one_cycle(step: int, steps: int, warmup_fraction: float, start_factor: float, final_factor: float) -> float:
    """Up and down along half cosines (Smith & Topin 2018); the rates of torch's OneCycleLR. Momentum stays as it is."""
    _require_fraction("schedule.warmup_fraction", warmup_fraction)
    top = warmup_fraction * steps - 1
    if step <= top:
        return _anneal(start_factor, 1.0, step / top if top > 0 else 1.0)
    return _anneal(1.0, final_factor, (step - top) / max(steps - 1 - top, 1))


def _anneal(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along a half cosine as `progress` goes from 0 to 1."""
    return last + (first - last) * (1 + cos(pi * min(progress, 1.0))) / 2


def _require_fraction(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"{key} is a part of a phase, from 0 to below 1, not {value}: type {key}=0.1")
