from math import isnan

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tests.reporting.pictures.drawn import lines, points, texts
from thaw.reporting.pictures.parallel_coordinates import axis, parallel_coordinates
from thaw.reporting.pictures.style import ORANGE

TRIALS = [
    {"lr": 1e-4, "freezing": "full", "seed": 0, "hidden": None, "loss": 0.5},
    {"lr": 1e-3, "freezing": "gradual", "seed": 0, "hidden": 64, "loss": 0.1},
    {"lr": 1e-2, "freezing": "full", "seed": 0, "hidden": 64, "loss": None},
    {"lr": 1e-1, "freezing": "full", "seed": 0, "loss": 0.9},
]


def test_a_trial_is_a_line_from_its_choices_to_its_result() -> None:
    figure = parallel_coordinates(TRIALS, "loss", "min")
    drawn = {name: line for name, line in lines(figure).items() if name.startswith("trial")}
    np.testing.assert_allclose(points(drawn["trial 0"]), [(0, 0), (1, 0.25), (2, 0.75), (3, 0.5)])
    np.testing.assert_allclose(points(drawn["trial 1"]), [(0, 1 / 3), (1, 0.75), (2, 0.25), (3, 0)], atol=1e-9)
    assert isnan(points(drawn["trial 2"])[3][1])  # failed
    assert isnan(points(drawn["trial 3"])[2][1])  # lacks a choice
    assert list(drawn) == ["trial 2", "trial 3", "trial 0", "trial 1"]  # the best one on top
    assert to_hex(drawn["trial 1"].get_color()).upper() == ORANGE
    assert drawn["trial 1"].get_linewidth() > 2 * drawn["trial 0"].get_linewidth()
    shown = texts(figure)
    assert {"lr", "freezing", "hidden", "loss", "0.0001", "0.1", "full", "gradual", "None", "64"} <= set(shown)
    note = (
        "Best (thick): trial 1, loss 0.1, the minimum. Dashed: 1 of 4 trials, without a result. In all trials: seed=0."
    )
    assert note in " ".join(shown).replace("\n", " ")


def test_the_best_is_the_largest_where_that_is_asked() -> None:
    figure = parallel_coordinates(TRIALS, "loss", "max")
    assert list(lines(figure))[3] == "trial 3"
    with pytest.raises(ValueError, match="mode is 'min' or 'max', not 'best'"):
        parallel_coordinates(TRIALS, "loss", "best")


def test_trials_have_their_own_names_and_of_equals_the_first_is_best() -> None:
    trials = [{"lr": 1, "loss": 0.5}, {"lr": 2, "loss": 0.1}, {"lr": 3, "loss": 0.1}]
    figure = parallel_coordinates(trials, "loss", "min", ["0", "2", "10"])
    assert list(lines(figure))[2] == "trial 2"
    assert "Best (thick): trial 2, loss 0.1, the minimum." in texts(figure)


@pytest.mark.parametrize(
    ("values", "heights", "ticks"),
    [
        ([1e-4, 1e-3, 1e-2], [0, 1 / 2, 1], ["0.0001", "0.001", "0.01"]),
        ([16, 32, 64, 128], [0, 1 / 7, 3 / 7, 1], ["16", "32", "64", "128"]),
        ([0.0, 0.25, 0.5], [0, 0.5, 1], ["0", "0.25", "0.5"]),
        ([3, 3], [0.5, 0.5], ["3"]),
        ([True, False], [0.75, 0.25], ["False", "True"]),
        (["b", 1], [0.75, 0.25], ["1", "b"]),
        ([[1, 2], [3]], [0.25, 0.75], ["[1, 2]", "[3]"]),
    ],
)
def test_an_axis_suits_its_values(values: list, heights: list[float], ticks: list[str]) -> None:
    made = axis("name", values)
    assert made.heights == pytest.approx(heights)
    assert [text for _, text in made.ticks] == ticks


def test_an_axis_of_many_values_has_few_ticks() -> None:
    for values in (
        [f"backbone {i}" for i in range(100)],
        [i / 7 for i in range(100)],
        [10 ** (i / 40) for i in range(100)],
    ):
        ticks = axis("name", values).ticks
        assert 2 <= len(ticks) <= 12
        assert all(0 <= height <= 1 for height, _ in ticks)


def test_sweeps_of_no_or_one_trial() -> None:
    assert texts(parallel_coordinates([], "loss", "min")) == ["no trials"]
    assert texts(parallel_coordinates([{"lr": 1, "loss": None}], "loss", "min")) == ["no trial has a loss"]
    figure = parallel_coordinates([{"lr": 0.1, "loss": 0.3}], "loss", "min")
    assert points(lines(figure)["trial 0"]) == [(0, 0.5), (1, 0.5)]
    assert {"lr", "0.1", "0.3"} <= set(texts(figure))
