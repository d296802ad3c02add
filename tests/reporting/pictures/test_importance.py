import pytest

from tests.reporting.pictures.drawn import texts
from thaw.reporting.pictures.importance import MOST_BARS, importance_bars


def test_the_most_important_choice_is_at_the_top_and_bars_are_as_long_as_shares() -> None:
    figure = importance_bars({"lr": 0.25, "freezing": 0.748, "seed": 0.002})
    bars = figure.axes[0].patches
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["seed", "lr", "freezing"]  # from the bottom
    assert [bar.get_width() for bar in bars] == pytest.approx([0.002, 0.25, 0.748])  # type: ignore[attr-defined]
    assert {"<1%", "25%", "75%"} <= set(texts(figure))


def test_of_many_choices_the_first_are_shown() -> None:
    figure = importance_bars({f"key{i}": i / 1000 for i in range(MOST_BARS + 5)})
    shown = texts(figure)
    assert f"The first {MOST_BARS} of {MOST_BARS + 5} choices." in shown
    assert f"key{MOST_BARS + 4}" in shown
    assert "key0" not in shown


def test_nothing_and_no_share_at_all() -> None:
    assert texts(importance_bars({})) == ["no choice was varied"]
    assert "0%" in texts(importance_bars({"lr": 0.0}))
