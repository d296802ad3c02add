"""Reads word vectors in the text formats of GloVe, word2vec and fastText: one word and its numbers per line."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thaw.errors import UserError

SUFFIXES = (".txt", ".vec")

Vector = NDArray[np.float32]
"""Vector of one word, (D,)."""


class Line(NamedTuple):
    """One line of a file of word vectors; `place` is its file and number, for messages."""

    place: str
    word: str
    numbers: list[str]


def read_word_vectors(
    file: Path, wanted: Collection[str], max_words: int, normalise: Callable[[str], str | None]
) -> dict[str, Vector]:
    """Vectors (D,) by word, in the order of the file.

    Args:
        file: a text file; a header line with the number of words and numbers is skipped.
        wanted: words whose vectors are read in any case.
        max_words: largest number of words, the wanted ones included; other words are read until it is reached.
        normalise: function from a word of the file to its form in texts; None if texts cannot have it. If several words
            have the same form (The, the), the one that equals the form is taken, or else the first.

    Raises:
        UserError: a line is malformed, or no word has a vector.
    """
    wanted = frozenset(wanted)
    room = max_words - len(wanted)
    vectors: dict[str, Vector] = {}
    for line in _lines(file):
        word = normalise(line.word)
        if word is None or (word in vectors and word != line.word):
            continue
        if word not in wanted and word not in vectors:
            if room <= 0:
                continue
            room -= 1
        vectors[word] = _vector(line)
    if not vectors:
        raise UserError(f"{file} has a vector for none of the words: is it of another language?")
    return vectors


def _lines(file: Path) -> Iterator[Line]:
    """All lines but the header that word2vec and fastText write (number of words, numbers per word)."""
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"backbone.weights is none or a file of word vectors as text ({', '.join(SUFFIXES)}), not {file}. "
            f"To start from the weights of a run type init_from=..."
        )
    if not file.is_file():
        raise UserError(f"{file} is not a file: backbone.weights is none or a file of word vectors")
    width = 0
    # Words may hold other spaces and line separators, and sometimes bytes that are no UTF-8.
    with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, text in enumerate((line.rstrip(" \r\n") for line in lines), start=1):
            place, parts = f"{file}, line {number}", text.split(" ")
            if not width and len(parts) == 2 and all(part.isdecimal() for part in parts):
                width = int(parts[1])
                continue
            width = width or len(parts) - 1
            if not 0 < width < len(parts):
                expected = f"{width} numbers" if width else "its numbers"
                raise UserError(
                    f"{place}: expected a word and {expected}, separated by single spaces, not '{text[:60]}'"
                )
            yield Line(place, " ".join(parts[:-width]), parts[-width:])  # GloVe has words of several parts


def _vector(line: Line) -> Vector:
    try:
        vector = np.array([float(number) for number in line.numbers], dtype=np.float32)
    except ValueError as error:
        raise UserError(f"{line.place}: {error}, after the word '{line.word}'") from None
    if not np.isfinite(vector).all():
        raise UserError(f"{line.place}: the vector of '{line.word}' is not finite")
    return vector
