from math import nan

import pytest

from tests.reporting.pictures.drawn import lines, points, texts
from thaw.reporting.pictures.pareto import pareto, pareto_front


@pytest.mark.parametrize(
    ("seconds", "values", "mode", "front"),
    [
        ([1, 2, 3, 4], [0.5, 0.4, 0.7, 0.7], "max", [0, 2]),  # as good but slower: not in it
        ([1, 2, 3, 4], [0.5, 0.4, 0.7, 0.7], "min", [0, 1]),
        ([3, 1, 1], [0.9, 0.5, 0.6], "max", [2, 0]),  # as fast but worse: not in it; the fastest first
        ([1, 1], [0.5, 0.5], "max", [0, 1]),
        ([1, nan, 2], [nan, 0.9, 0.1], "max", [2]),
        ([], [], "max", []),
    ],
)
def test_the_front_has_what_no_other_trial_beats(
    seconds: list[float], values: list[float], mode: str, front: list[int]
) -> None:
    assert pareto_front(seconds, values, mode) == front


def test_the_front_is_named_and_joined_and_the_others_are_points() -> None:
    figure = pareto(["a", "b", "c", "d"], [1, 2, 3, 4], [0.5, 0.4, 0.7, 0.6], "m/val", "max")
    drawn = lines(figure)
    assert points(drawn["front"]) == [(1, 0.5), (3, 0.7)]
    assert points(drawn["others"]) == [(2, 0.4), (4, 0.6)]
    shown = texts(figure)
    assert {"a", "c", "seconds", "m/val", "Orange: no other trial is both faster and higher."} <= set(shown)
    assert not {"b", "d"} & set(shown)
    assert figure.axes[0].get_xscale() == "linear"


def test_times_of_different_size_are_on_a_log_axis() -> None:
    assert pareto(["a", "b"], [1, 100], [0.5, 0.4], "m", "min").axes[0].get_xscale() == "log"
    assert pareto(["a", "b"], [0, 100], [0.5, 0.4], "m", "min").axes[0].get_xscale() == "linear"


def test_no_trial_with_a_value() -> None:
    assert texts(pareto(["a"], [1], [nan], "m", "max")) == ["no trial has a m"]
