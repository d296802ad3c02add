"""Read word vectors in the text formats of GloVe, word2vec and fastText: a word and its numbers a line."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thaw.errors import UserError

SUFFIXES = (".txt", ".vec")

Vector = NDArray[np.float32]


class Line(NamedTuple):
    place: str
    """File and number, for people."""
    word: str
    numbers: list[str]


def read_word_vectors(
    file: Path, wanted: Collection[str], most: int, spelt: Callable[[str], str | None]
) -> dict[str, Vector]:
    """Vectors (D,) by word, in the order of the file: those of `wanted`, and of others until all are `most` words.

    `spelt`: how texts have a word of the file; None where they cannot have it. Of words that they have alike (The, the)
    the one that stands so in the file is taken, else the first. Raises UserError, with the line, for bad lines.
    """
    wanted = frozenset(wanted)
    room = most - len(wanted)
    found: dict[str, Vector] = {}
    for line in _lines(file):
        word = spelt(line.word)
        if word is None or (word in found and word != line.word):
            continue
        if word not in wanted and word not in found:
            if room <= 0:
                continue
            room -= 1
        found[word] = _vector(line)
    if not found:
        raise UserError(f"{file} has a vector for none of the words: is it of another language?")
    return found


def _lines(file: Path) -> Iterator[Line]:
    """All but the header, which word2vec and fastText write: how many words, and how many numbers each."""
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"backbone.weights is none or a file of word vectors as text ({', '.join(SUFFIXES)}), not {file}. "
            f"To start from the weights of a run type init_from=..."
        )
    if not file.is_file():
        raise UserError(f"{file} is not a file: backbone.weights is none or a file of word vectors")
    width = 0
    # Words may hold other spaces than the plain one, other ends of lines than \n, and now and then no UTF-8.
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
