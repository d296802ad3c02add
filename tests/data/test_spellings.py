import pytest

from thaw.data.spellings import spelling_hint, spellings


@pytest.mark.parametrize(
    "same",
    [
        ("0", "0.0", "00"),
        ("True", "TRUE"),
        ("Positive", "positive "),
        ("very good", "Very_Good", "very\u00a0good", "very  good", "very good\u200b"),
        ("\uff21", "a"),
        ("STRASSE", "straße"),
        ("1e3", "1000"),
    ],
)
def test_spellings_of_one_label_are_found(same: tuple[str, ...]) -> None:
    assert spellings([*same, "other"]) == [list(same)]
    assert "' = '".join(same) in spelling_hint([*same, "other"])


def test_different_labels_are_left_alone() -> None:
    different = ["1", "-1", "10", "nan", "inf", "a", "b", "ab", "c#", "c", "c++", "yes", "no", "é", "e", "True", "1.5"]
    assert spellings(different) == []
    assert spelling_hint(different) == ""
