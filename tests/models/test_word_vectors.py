from pathlib import Path

import pytest

from thaw.errors import UserError
from thaw.models.word_vectors import read_word_vectors

WANTED = ["cat", "us"]


def read(folder: Path, text: str, most: int = 10, name: str = "vectors.txt") -> dict[str, list[float]]:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    found = read_word_vectors(folder / name, WANTED, most, one_word)
    return {word: vector.tolist() for word, vector in found.items()}


def one_word(word: str) -> str | None:
    return None if " " in word or not word else word.lower()


@pytest.mark.parametrize("header", ["", "3 2\n"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
def test_with_and_without_a_header(tmp_path: Path, header: str, end: str) -> None:
    text = header + end.join(["the 1 2", "cat 3 -4e-1", "영화 5 6"])
    assert read(tmp_path, text) == {"the": [1, 2], "cat": [3, pytest.approx(-0.4)], "영화": [5, 6]}


def test_words_of_several_parts_and_odd_ones_break_nothing(tmp_path: Path) -> None:
    text = "the 1 2\n. . . 3 4\na\u00a0b 5 6\n\udcff 7 8\nat name@domain.com 9 1\nc\x85\rd 1 1\n"
    assert read(tmp_path, text) == {"the": [1, 2], "a\u00a0b": [5, 6], "\ufffd": [7, 8], "c\x85\rd": [1, 1]}


def test_wanted_words_are_found_wherever_they_are_and_others_until_it_is_full(tmp_path: Path) -> None:
    text = "the 1 1\nof 2 2\nand 3 3\ncat 4 4\n"
    assert list(read(tmp_path, text, most=4)) == ["the", "of", "cat"]  # a place is kept for `us`
    assert list(read(tmp_path, text, most=2)) == ["cat"]


def test_of_two_spellings_the_one_that_texts_have_is_taken(tmp_path: Path) -> None:
    assert read(tmp_path, "US 1 1\nUs 2 2\nus 3 3\nuS 4 4\nCat 5 5\nCAT 6 6\n") == {"us": [3, 3], "cat": [5, 5]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has a vector for none of the words"),
        ("cat\n", r"vectors.txt, line 1: expected a word and its numbers, separated by single spaces, not 'cat'"),
        ("the 1 2\ncat 1\n", "vectors.txt, line 2: expected a word and 2 numbers, .* not 'cat 1'"),
        ("2 2\nthe 1 2\n2 2\n", "vectors.txt, line 3: expected a word and 2 numbers"),
        ("the 1 2\n\ncat 1 2\n", "vectors.txt, line 2: "),
        ("the 1 2\ncat 1 x\n", "vectors.txt, line 2: could not convert string to float: 'x', after the word 'cat'"),
        ("the 1 2\ncat 1 nan\n", "vectors.txt, line 2: the vector of 'cat' is not finite"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"as text \(.txt, .vec\), not .*model.bin"):
        read(tmp_path, "the 1 2\n", name="model.bin")
    with pytest.raises(UserError, match=r"backbone\.weights is none or a file of word vectors"):
        read_word_vectors(tmp_path / "missing.txt", WANTED, 10, one_word)
