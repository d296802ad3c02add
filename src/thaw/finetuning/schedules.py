"""Learning-rate schedules as closed forms: factors by step. They restart with every phase.

`step` counts optimizer steps from 0 within the phase; `steps` is the length of the phase.
"""

from collections.abc import Callable
from math import cos, pi
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, PolynomialLR

from thaw.errors import UserError
from thaw.finetuning.phase import Plan
from thaw.signatures import keywords

LENGTHS = {CosineAnnealingLR: "T_max", LinearLR: "total_iters", PolynomialLR: "total_iters"}
"""Arguments of torch's schedulers that say when they end."""

Schedule = Callable[[int, int], float]
"""Function from `step` and `steps` to the factor on the rates."""


def lr_factor(step: int, plan: Plan, schedule: Schedule, steps_per_epoch: int) -> float:
    """Factor on every base rate at optimizer step `step` of the run."""
    step = min(step, plan.total_epochs * steps_per_epoch - 1)  # torch asks for one more, after the last
    epoch = step // steps_per_epoch
    phase = plan.at(epoch)
    return phase.lr_scale * schedule(step - plan.start(epoch) * steps_per_epoch, phase.epochs * steps_per_epoch)


class PhaseSchedule(LRScheduler):
    """Multiplies every base rate by `factor(step)`; torch's LambdaLR calls its function once per parameter group."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]):
        self.factor = factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Rates of all groups for the current step."""
        factor = self.factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Plain values only: the function stays out of checkpoints."""
        return {name: value for name, value in super().state_dict().items() if name != "factor"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the step, then set the rates of the current plan, which may have phases that the saved one lacked."""
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


def constant(step: int, steps: int) -> float:
    """The full rate at every step."""
    return 1.0


def warmup_cosine(step: int, steps: int, warmup_fraction: float, final_factor: float) -> float:
    """Linear warm-up for `warmup_fraction` of the phase, then a half cosine down to `final_factor`."""
    warmup = int(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _anneal(1.0, final_factor, (step - warmup) / (steps - warmup))


def one_cycle(step: int, steps: int, warmup_fraction: float, start_factor: float, final_factor: float) -> float:
    """Up and down along half cosines (Smith & Topin 2018): the rates of torch's OneCycleLR, without its momentum."""
    top = warmup_fraction * steps - 1
    if step <= top:
        return _anneal(start_factor, 1.0, step / top if top > 0 else 1.0)
    return _anneal(1.0, final_factor, (step - top) / max(steps - 1 - top, 1))


class ClosedForm:
    """A scheduler of torch as a schedule: StepLR, CosineAnnealingLR and others whose rate is a formula of the step.

    It counts optimizer steps within the phase, and ends with the phase unless `choices` say when. Rates in `choices`,
    such as `eta_min`, are relative to the full rate.

    Args:
        scheduler: class of the scheduler.
        choices: its arguments, without the optimizer.

    Raises:
        UserError: the scheduler needs more than the step, such as a metric or its own past, or does not take `choices`.
    """

    def __init__(self, scheduler: type[LRScheduler], **choices: Any):
        bases = [base for base in scheduler.__mro__ if {"get_lr", "_get_closed_form_lr"} & vars(base).keys()]
        if not bases or "_get_closed_form_lr" not in vars(bases[0]):
            raise UserError(
                f"{scheduler.__name__} needs more than the step (a metric, its own past): a resumed run could not "
                "repeat its rates: take schedule=warmup_cosine, one_cycle or constant, or torch's StepLR, MultiStepLR, "
                "LinearLR, ExponentialLR, PolynomialLR or CosineAnnealingLR"
            )
        self.scheduler, self.choices = scheduler, choices
        self.length = next((name for kind, name in LENGTHS.items() if issubclass(scheduler, kind)), "")
        self._by_steps: dict[int, Any] = {}
        needed = [name for name, parameter in keywords(scheduler).items() if parameter.default is parameter.empty]
        if missing := set(needed) - {"optimizer", self.length} - choices.keys():
            raise UserError(
                f"schedule lacks {', '.join(missing)}, which {scheduler.__name__} needs: type "
                f"+schedule.{min(missing)}=..."
            )

    def __call__(self, step: int, steps: int) -> float:
        """Factor on the rates at a step of a phase."""
        if steps not in self._by_steps:
            optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
            length = {self.length: steps} if self.length else {}
            self._by_steps[steps] = self.scheduler(optimizer, **{**length, **self.choices})
        scheduler = self._by_steps[steps]
        scheduler.last_epoch = step
        return float(scheduler._get_closed_form_lr()[0])


def require_factors(schedule: Schedule) -> None:
    """Raise UserError if a schedule is no function of (step, steps), or does not take the values of its options."""
    try:
        factors = [schedule(step, 8) for step in range(8)]
        faults = [factor for factor in factors if not isinstance(factor, int | float)]
    except UserError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"schedule: {error}. It is called with (step, steps) of a phase: mend its options, or type "
            f"schedule=warmup_cosine"
        ) from error
    if faults:
        raise UserError(f"schedule gives {faults[0]!r}, and a factor on the rates is a number")


def _anneal(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along a half cosine as `progress` goes from 0 to 1."""
    return last + (first - last) * (1 + cos(pi * min(progress, 1.0))) / 2
