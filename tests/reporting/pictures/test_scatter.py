import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.reporting.pictures.drawn import AWKWARD, lines, points, texts
from thaw.reporting.pictures.render import svg
from thaw.reporting.pictures.scatter import MOST_POINTS, residuals, scatter

TRUE = np.array([[0.0, 10.0], [1.0, 30.0], [2.0, 20.0]])
SAID = np.array([[0.5, 10.0], [1.0, 20.0], [3.0, 25.0]])
NAMES = ["length", "width"]


def drawn(figure: Figure, panel: int = 0) -> list[tuple[float, float]]:
    return points(lines(figure, panel)["samples"])


def test_points_are_true_and_predicted_numbers_and_the_line_is_where_they_are_the_same() -> None:
    figure = scatter(TRUE, SAID, NAMES)
    assert drawn(figure) == [(0, 0.5), (1, 1), (2, 3)]
    assert drawn(figure, 1) == [(10, 10), (30, 20), (20, 25)]
    assert all(x == y for x, y in points(lines(figure)["perfect"]))
    assert {"length", "width", "true", "predicted"} <= set(texts(figure))


def test_residuals_are_predicted_minus_true() -> None:
    figure = residuals(TRUE, SAID, NAMES)
    assert drawn(figure) == [(0.5, 0.5), (1, 0), (3, 1)]
    assert drawn(figure, 1) == [(10, 0), (20, -10), (25, 5)]


def test_many_samples_are_thinned_and_what_is_not_finite_is_left_out() -> None:
    many = np.arange(2.0 * MOST_POINTS + 2)[:, None]
    figure = scatter(many, many, ["length"])
    assert len(drawn(figure)) <= MOST_POINTS
    assert "One in 3 of 6002 samples." in texts(figure)
    assert len(svg(figure, "many")) < 200_000
    said = SAID.copy()
    said[1, 0] = np.nan
    figure = residuals(TRUE, said, NAMES)
    assert len(drawn(figure, 1)) == 2
    assert any(text.startswith("Left out: 1 of 3 samples") for text in texts(figure))
    assert texts(scatter(TRUE, said * np.nan, NAMES)) == ["None of 3 samples has predictions that are finite numbers."]


def test_no_samples_one_sample_and_many_quantities() -> None:
    assert texts(scatter(np.zeros((0, 1)), np.zeros((0, 1)), ["length"])) == ["no samples"]
    assert drawn(scatter([[3.0]], [[3.0]], ["length"])) == [(3, 3)]
    ten = np.ones((5, 10)) * np.arange(5)[:, None]
    figure = scatter(ten, ten, AWKWARD)
    assert sum("samples" in lines(figure, panel) for panel in range(len(figure.axes))) == 9
    assert "The first 9 of 10 quantities." in texts(figure)
    with pytest.raises(ValueError, match=r"\(N, 2\), for 2 class_names"):
        scatter(TRUE[:, :1], SAID[:, :1], NAMES)
