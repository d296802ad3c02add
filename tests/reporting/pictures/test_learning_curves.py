from itertools import pairwise
from math import inf, isnan, nan

import pytest

from tests.reporting.pictures.drawn import lines, points, texts
from thaw.reporting.pictures.learning_curves import learning_curves
from thaw.reporting.pictures.phases import PhaseSpan, phase_labels

CURVES = {
    "loss": {"train": [(0, 2.0), (1, 1.0), (2, 0.5)], "val": [(0, 1.5), (1, 0.75), (2, 0.8)]},
    "accuracy": {"val": [(0, 0.5), (1, 0.912345), (2, 0.9)], "test": [(2, 0.89)]},
}


def test_a_panel_for_each_category_with_epochs_counted_from_1() -> None:
    figure = learning_curves(CURVES, best_epoch=1)
    loss, accuracy = figure.axes
    assert (loss.get_title("left"), accuracy.get_title("left")) == ("loss", "accuracy")
    assert points(lines(figure)["train"]) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert points(lines(figure, 1)["val"]) == [(1, 0.5), (2, 0.912345), (3, 0.9)]
    assert points(lines(figure, 1)["test"]) == [(3, 0.89)]
    assert {"train 0.5", "val 0.8", "test 0.89"} <= set(texts(figure))
    assert points(lines(figure)["best"]) == [(2, 0.75)]
    assert accuracy.get_title("right") == "best epoch 2: 0.912"
    assert [tick for tick in loss.get_xticks() if 0.5 <= tick <= 3.5] == [1, 2, 3]


def test_phases_lie_behind_their_epochs() -> None:
    figure = learning_curves(CURVES, [PhaseSpan(0, 0, "head"), PhaseSpan(1, 2, "all")])
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in figure.axes[0].patches]
    assert bands == [(0.5, 1.5), (1.5, 3.5)]
    assert {"head", "all"} <= set(texts(figure))


def test_names_of_phases_that_do_not_fit_go_into_a_key() -> None:
    phases = [PhaseSpan(0, 0, "head"), PhaseSpan(1, 1, "layer4, head"), PhaseSpan(2, 40, "all")]
    assert phase_labels(phases, pixels_per_unit=100) == (["head", "layer4, head", "all"], "")
    assert phase_labels(phases, pixels_per_unit=12) == (["1", "2", "3"], "Phases: 1 head · 2 layer4, head · 3 all")
    labels, _ = phase_labels([PhaseSpan(epoch, epoch, "x") for epoch in range(100)], pixels_per_unit=6)
    assert labels[0] == "1"
    assert all(not (one and other) for one, other in pairwise(labels))  # no two overlap
    assert sum(map(bool, labels)) > 25


def test_a_run_that_diverges_has_gaps_and_says_so() -> None:
    figure = learning_curves({"loss": {"train": [(0, 1.0), (1, inf), (2, nan)], "val": [(0, nan)]}}, best_epoch=0)
    drawn = points(lines(figure)["train"])
    assert drawn[0] == (1, 1.0)
    assert isnan(drawn[1][1])
    assert isnan(drawn[2][1])
    assert {"train 1 → nan", "val nan"} <= set(texts(figure))


@pytest.mark.parametrize("curves", [{}, {"loss": {}}, {"loss": {"train": []}}])
def test_no_epoch_yet(curves: dict) -> None:
    assert texts(learning_curves(curves)) == ["no epochs yet"]
