"""What goes into an average of weights, with weights of one number that is best at 2."""

from functools import partial

import pytest
import torch

from thaw.sweeping.soup import Score, Soup, Weights, along_line, greedy


def weights(value: float) -> Weights:
    return {"w": torch.tensor([value], dtype=torch.float64)}


def measured(value: Weights) -> Score:
    """The metric has one digit, so that the loss decides among the nearest."""
    distance = abs(float(value["w"]) - 2)
    return Score((-round(distance, 0), -distance), round(distance, 0), distance)


def cooked(*values: float) -> Soup:
    return greedy([(str(value), partial(weights, value)) for value in values], measured)


@pytest.mark.parametrize(
    ("values", "taken", "average"),
    [
        ((1.0, 3.0, 10.0), [True, True, False], 2.0),
        ((1.0, 0.0, 5.0), [True, False, False], 1.0),
        ((1.0, 2.5, 3.0), [True, True, True], 6.5 / 3),
        ((1.0, 1.0), [True, False], 1.0),
    ],
)
def test_a_member_stays_where_the_average_gets_better(values: list[float], taken: list[bool], average: float) -> None:
    soup = cooked(*values)
    assert [one.taken for one in soup.tried] == taken
    assert float(soup.weights["w"]) == pytest.approx(average, abs=1e-12)
    assert soup.score == measured(soup.weights)


def test_the_best_point_between_probe_and_soup_is_taken_and_none_if_all_are_worse() -> None:
    better = along_line(weights(0.0), cooked(5.0), 4, measured)
    assert float(better.weights["w"]) == 2.0
    assert [one.taken for one in better.tried] == [False, False, True, False], "from the soup to the probe"
    assert better.tried[2].name == "40% of the way from the probe"
    best = along_line(weights(0.0), cooked(2.0), 4, measured)
    assert float(best.weights["w"]) == 2.0
    assert not any(one.taken for one in best.tried)
