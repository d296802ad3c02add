import torch
from torch import nn

from thaw.replaying.trace import Numbers, Trace, numbers


def test_numbers_are_of_what_is_finite() -> None:
    values = torch.tensor([1.0, -2.0, torch.inf, torch.nan])
    assert numbers([values, torch.tensor([5])]) == Numbers(-2.0, 1.0, not_finite=2, total=4)
    assert numbers([torch.tensor([torch.nan])]) == Numbers(None, None, not_finite=1, total=1)
    assert numbers([torch.tensor([5])]) == Numbers(None, None, not_finite=0, total=0)


def test_the_first_stage_that_is_not_finite_is_named() -> None:
    stages = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("one", "two", "three")})
    with torch.no_grad():
        stages["two"].weight[0, 0] = torch.nan
    trace = Trace(stages)
    with trace.watching():
        x = torch.tensor([[1.0, 2.0]])
        for stage in stages.values():
            x = stage(x)
    x.sum().backward()
    assert trace.inputs == Numbers(1.0, 2.0, not_finite=0, total=2)
    assert trace.findings() == [
        "weights that are not finite: two.weight (1 of 4)",
        "the first stage whose output is not finite: two",
    ]
    (row,) = (line for line in trace.table().splitlines() if "three" in line)
    assert "2 of 2" in row
    assert not stages["one"]._forward_hooks


def test_what_is_finite_is_said_to_be() -> None:
    trace = Trace(nn.ModuleDict({"one": nn.BatchNorm1d(2)}))
    with trace.watching():
        trace.stages["one"](torch.ones(3, 2))
    assert trace.findings() == ["all inputs, weights and outputs are finite"]
    with trace.watching():
        trace.stages["one"](torch.full((3, 2), torch.nan))
    assert "statistics (of trained stages: with this step) that are not finite: one.running_mean (2 of 2)" in "".join(
        trace.findings()
    )
