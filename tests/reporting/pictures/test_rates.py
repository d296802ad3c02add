from itertools import pairwise
from math import isnan

from tests.reporting.pictures.drawn import lines, points, texts
from thaw.reporting.pictures.phases import PhaseSpan
from thaw.reporting.pictures.rates import stage_rates

RATES = {"stem": [(0, 0.0), (1, 0.0), (2, 1e-4)], "head": [(0, 1e-2), (1, 2e-3), (2, 1e-3)]}


def test_a_line_for_each_stage_with_gaps_where_it_is_frozen() -> None:
    figure = stage_rates(RATES, [PhaseSpan(0, 1, "head"), PhaseSpan(2, 2, "all")])
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert points(lines(figure)["head"]) == RATES["head"]
    stem = points(lines(figure)["stem"])
    assert stem[2] == (2, 1e-4)
    assert isnan(stem[0][1])
    assert {"stem  0.0001", "head  0.001", "head", "all"} <= set(texts(figure))
    assert [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches] == [(-0.5, 1.5), (1.5, 2.5)]


def test_labels_of_many_stages_do_not_overlap() -> None:
    figure = stage_rates({f"blocks.{i}": [(0, 1e-3), (5, 1e-3 * 0.99**i)] for i in range(30)})
    texts(figure)
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 30
    assert all(above.y0 > below.y0 + 12 for below, above in pairwise(boxes))  # pixels
    assert boxes[0].x1 <= 800


def test_nothing_to_draw() -> None:
    assert texts(stage_rates({})) == texts(stage_rates({"head": []})) == ["no steps yet"]
    assert texts(stage_rates({"head": [(0, 0.0)]})) == ["all learning rates are 0"]
