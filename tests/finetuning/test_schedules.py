from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LambdaLR

from thaw.errors import UserError
from thaw.finetuning.phase import Phase, Plan
from thaw.finetuning.schedules import ClosedForm, PhaseSchedule, Schedule, constant, lr_factor, one_cycle, warmup_cosine

STAGES = {"body": ["body.weight"], "head": ["head.weight"]}
COSINE = partial(warmup_cosine, warmup_fraction=0.2, final_factor=0.0)
ONE_CYCLE = partial(one_cycle, warmup_fraction=0.3, start_factor=0.04, final_factor=4e-6)


def test_warmup_cosine_rises_to_the_full_rate_and_falls_to_the_final_one() -> None:
    factors = [COSINE(step, 10) for step in range(11)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[10] == pytest.approx(0.0)
    assert warmup_cosine(9, 9, 0.0, 0.25) == pytest.approx(0.25)


@pytest.mark.parametrize("steps", [2, 3, 7, 10, 40, 101])
def test_one_cycle_has_the_rates_of_torch(steps: int) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=steps,
        pct_start=0.3,
        div_factor=25,
        final_div_factor=1e4,
        cycle_momentum=False,
    )
    for step in range(steps):
        if 0.3 * steps >= 1:  # below that torch extrapolates before its first step
            assert ONE_CYCLE(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step + 1 < steps:
            torchs.step()


@pytest.mark.parametrize(
    ("scheduler", "choices"),
    [
        (lr_scheduler.StepLR, {"step_size": 4, "gamma": 0.5}),
        (lr_scheduler.MultiStepLR, {"milestones": [2, 5]}),
        (lr_scheduler.ConstantLR, {"factor": 0.5, "total_iters": 3}),
        (lr_scheduler.LinearLR, {"start_factor": 0.1, "total_iters": 10}),
        (lr_scheduler.ExponentialLR, {"gamma": 0.9}),
        (lr_scheduler.PolynomialLR, {"power": 2.0, "total_iters": 10}),
        (lr_scheduler.CosineAnnealingLR, {"T_max": 10, "eta_min": 0.1}),
    ],
)
def test_a_closed_form_scheduler_of_torch_has_its_own_rates_and_ends_with_the_phase(scheduler, choices) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    torchs = scheduler(optimizer, **choices)
    open_end = {key: value for key, value in choices.items() if value != 10}
    schedule = ClosedForm(scheduler, **open_end)
    for step in range(10):
        assert schedule(step, 10) == pytest.approx(torchs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        torchs.step()
    assert schedule(0, 5) == ClosedForm(scheduler, **open_end)(0, 5)


class Warmed(lr_scheduler.CosineAnnealingLR):
    """Has its base's closed form, which is not its own."""

    def get_lr(self) -> list[float]:
        return [1.0]


def test_a_derived_scheduler_whose_closed_form_is_not_its_own_is_refused() -> None:
    with pytest.raises(UserError, match="Warmed needs more than the step"):
        ClosedForm(Warmed)
    with pytest.raises(UserError, match="schedule lacks step_size, which StepLR needs"):
        ClosedForm(lr_scheduler.StepLR)


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "OneCycleLR", "LambdaLR", "SequentialLR"])
def test_a_scheduler_that_needs_more_than_the_step_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} needs more than the step .*take schedule=warmup_cosine"):
        ClosedForm(getattr(lr_scheduler, name))


@pytest.mark.parametrize("schedule", [constant, COSINE, ONE_CYCLE])
def test_every_phase_starts_the_schedule_again_at_its_own_scale(schedule: Schedule) -> None:
    plan = Plan([Phase(2, ("head",)), Phase(3, ("*",), lr_scale=0.5)], STAGES)
    factors = [lr_factor(step, plan, schedule, steps_per_epoch=4) for step in range(20)]
    assert factors[:8] == [schedule(step, 8) for step in range(8)]
    assert factors[8:] == [0.5 * schedule(step, 12) for step in range(12)]


@pytest.mark.parametrize("schedule", [COSINE, ONE_CYCLE])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_phases_of_a_few_steps_work(schedule: Schedule, steps: int) -> None:
    assert all(0 <= schedule(step, steps) <= 1 for step in range(steps + 1))


FRACTIONS, FINALS = st.floats(0, 0.99), st.floats(0, 1)


@given(
    schedule=st.one_of(
        st.just(constant),
        st.builds(partial, st.just(warmup_cosine), warmup_fraction=FRACTIONS, final_factor=FINALS),
        st.builds(
            partial,
            st.just(one_cycle),
            warmup_fraction=FRACTIONS,
            start_factor=st.floats(0.001, 1),
            final_factor=FINALS,
        ),
    ),
    phases=st.lists(
        st.builds(Phase, st.integers(1, 4), st.just(("head",)), st.floats(0.01, 2)), min_size=1, max_size=4
    ),
    steps_per_epoch=st.integers(1, 12),
)
def test_any_schedule_starts_again_with_each_phase_as_if_there_were_no_other(
    schedule: Schedule, phases: list[Phase], steps_per_epoch: int
) -> None:
    plan = Plan(phases, STAGES)
    found = iter([lr_factor(s, plan, schedule, steps_per_epoch) for s in range(plan.total_epochs * steps_per_epoch)])
    final = getattr(schedule, "keywords", {}).get("final_factor", 1.0)
    for phase in phases:
        alone = Plan([phase], STAGES)
        for step in range(phase.epochs * steps_per_epoch):
            factor = next(found)
            assert factor == lr_factor(step, alone, schedule, steps_per_epoch)
            assert 0 <= factor <= phase.lr_scale * (1 + 1e-9)
            assert factor > 0 or final == 0
    beyond = lr_factor(plan.total_epochs * steps_per_epoch, plan, schedule, steps_per_epoch)
    assert beyond == factor, "torch asks for one more after the last step"


def test_the_scheduler_sets_the_rates_that_torchs_lambda_lr_sets() -> None:
    rates = []
    for kind in (PhaseSchedule, LambdaLR):
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.01)]
        optimizer = torch.optim.SGD(groups)
        scheduler = kind(optimizer, lambda step: 1 / (step + 1))
        seen = [[group["lr"] for group in optimizer.param_groups]]
        for _ in range(3):
            optimizer.step()
            scheduler.step()
            seen.append([group["lr"] for group in optimizer.param_groups])
        rates.append(seen)
    assert rates[0] == rates[1]


def test_the_state_of_the_scheduler_is_plain() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    state = PhaseSchedule(optimizer, lambda step: 1.0).state_dict()
    assert "factor" not in state
    assert all(isinstance(value, (int, float, bool, list, type(None))) for value in state.values())
