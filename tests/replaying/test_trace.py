import math

import torch
from torch import nn

from tests.tiny import chain
from thaw.models.network import Network
from thaw.replaying.trace import StageTrace, ValueRange, value_range
from thaw.types import ImageSpec


def network() -> Network:
    stages = {"one": nn.Linear(2, 2), "two": nn.BatchNorm1d(2)}
    return Network(chain(stages, 2, ImageSpec(8, 1, (0.0,), (1.0,))), head=nn.Linear(2, 2))


def test_ranges_are_of_finite_values() -> None:
    values = torch.tensor([1.0, -2.0, torch.inf, torch.nan])
    assert value_range({"a": values, "b": [torch.tensor(5)]}) == ValueRange(-2.0, 1.0, non_finite=2, total=4)
    nothing = value_range(torch.tensor([torch.nan]))
    assert math.isnan(nothing.smallest)
    assert (nothing.non_finite, nothing.total) == (1, 1)
    assert value_range(torch.tensor([5])).total == 0


def test_the_first_stage_with_non_finite_values_is_named() -> None:
    broken, x = network().eval(), torch.tensor([[1.0, 2.0]])
    broken.backbone.two.running_mean[0] = torch.nan
    trace = StageTrace(broken, x)
    broken(x).sum().backward()
    report = trace.report()
    assert report.endswith("the first stage with non-finite values: two")
    rows = {line.split()[1]: line for line in report.splitlines() if "│" in line}
    assert "1 of 2" in rows["two"]
    assert "2 of 2" in rows["head"]
    assert "2 of 2" not in rows["one"]
    assert "yes" in rows["one"]
    trace = StageTrace(network(), torch.full((3, 2), torch.nan))
    assert trace.report().endswith("the first stage with non-finite values: (inputs)")


def test_the_stage_that_failed_is_named() -> None:
    whole = network()
    trace = StageTrace(whole, torch.ones(1, 2))
    whole.backbone.two.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        whole(torch.ones(1, 2))
    except ZeroDivisionError:
        assert trace.report().endswith("all outputs are finite\nthe stage that failed: two")
    else:
        raise AssertionError


def test_weights_that_are_not_finite_are_seen() -> None:
    broken = network()
    with torch.no_grad():
        broken.backbone.one.weight[0, 0] = torch.nan
    (row,) = (line for line in StageTrace(broken, torch.ones(1, 2)).report().splitlines() if "one" in line)
    assert "nan" in row
