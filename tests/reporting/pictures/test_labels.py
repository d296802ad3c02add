from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.reporting.pictures.labels import columns, number, shortened, spread, wrapped


@given(st.text(), st.integers(10, 40))
def test_a_short_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert 0 < columns(short) <= width
    assert short.isspace() is False
    if "…" not in text and "…" in short:
        start, end = short.split("…")
        whole = shortened(text, 10**6)
        assert whole.startswith(start)
        assert whole.endswith(end)
    elif "…" not in text:
        assert short == shortened(text, 10**6)


def test_a_name_without_a_letter_is_named_and_bytes_of_another_encoding_are_marked() -> None:
    assert shortened(" \t\n", 20) == "(no name)"
    assert shortened("caf\udce9\x00", 20) == "caf\ufffd\ufffd"
    assert shortened("n01440764 tench fish", 12) == "n0144076…ish"
    assert columns(shortened("아주 긴 이름을 가진 동물", 11)) <= 11


def test_a_caption_is_cut_at_spaces_and_a_per_cent_sign_stays_with_its_number() -> None:
    assert wrapped("true 3 / predicted 8, 97 %", 18, 3) == "true 3 / predicted\n8, 97 %"
    assert wrapped("a b\nc", 18, 3) == "a b\nc"
    assert wrapped("one two three four five", 5, 2) == "one\ntwo…e"
    assert wrapped("", 5, 2) == ""


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.01, 5))
def test_labels_keep_their_order_and_distance_and_move_no_further_than_they_must(
    wanted: list[float], gap: float
) -> None:
    placed = spread(wanted, gap)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for below, above in pairwise(order):
        assert placed[above] - placed[below] >= gap - 1e-9
    assert sum(placed) == pytest.approx(sum(wanted), abs=1e-6)  # none is pushed aside in favour of others
    if all(wanted[above] - wanted[below] >= gap for below, above in pairwise(order)):
        assert placed == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00001, "1e-5"), (0.95312, "0.953"), (12345.6, "12346"), (1e6, "1e6"), (0, "0"), (-0.5, "-0.5"), (64, "64")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
