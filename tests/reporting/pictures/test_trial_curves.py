from math import nan

from matplotlib.colors import to_hex

from tests.reporting.pictures.drawn import lines, points, texts
from thaw.reporting.pictures.render import svg
from thaw.reporting.pictures.style import ORANGE
from thaw.reporting.pictures.trial_curves import trial_curves

CURVES = {"0": [(0, 0.1), (1, 0.9)], "1": [(0, 0.2)], "2": [(0, 0.3), (1, nan), (2, 0.4)], "3": []}


def test_a_line_for_each_trial_the_best_in_front_and_a_cross_where_one_was_pruned() -> None:
    figure = trial_curves(CURVES, "m/val", best="0", pruned=["1"])
    drawn = lines(figure)
    assert list(drawn)[-1] == "trial 0"
    assert to_hex(drawn["trial 0"].get_color()).upper() == ORANGE
    assert drawn["trial 0"].get_linewidth() > 2 * drawn["trial 2"].get_linewidth()
    assert points(drawn["trial 0"]) == [(1, 0.1), (2, 0.9)]  # epochs from 1
    assert points(drawn["end of 1"]) == [(1, 0.2)]
    assert drawn["end of 1"].get_marker() == "x"
    assert "trial 3" not in drawn
    shown = texts(figure)
    assert {"trial 0", "epoch", "m/val", "Orange: the best trial. A cross: there the trial was pruned."} <= set(shown)


def test_before_a_trial_has_ended_or_has_begun() -> None:
    assert "Orange" not in " ".join(texts(trial_curves(CURVES, "m/val")))
    assert texts(trial_curves({}, "m/val", best="0")) == ["no epochs yet"]
    assert texts(trial_curves({"0": []}, "m/val")) == ["no epochs yet"]


def test_a_thousand_trials_make_a_small_picture() -> None:
    curves = {str(trial): [(epoch, (trial * epoch) % 17 / 17) for epoch in range(50)] for trial in range(1000)}
    assert len(svg(trial_curves(curves, "m/val", best="7"), "many")) < 700_000
