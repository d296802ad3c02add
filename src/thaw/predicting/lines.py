"""Samples that stand one on each line: of a .txt file, or of standard input."""

import sys
from pathlib import Path

from thaw.data.table import Row, decoded, read_text
from thaw.errors import UserError

STANDARD_INPUT = "-"
"""The `input` that stands for standard input."""
LINES_SUFFIXES = (".txt", ".txt.gz")
LINE = "line"
"""Column that holds the line."""


def holds_lines(source: str) -> bool:
    """Whether an `input` is a source of lines, by its name."""
    return source == STANDARD_INPUT or source.lower().endswith(LINES_SUFFIXES)


def read_lines(source: str, encoding: str) -> list[Row]:
    """Read a .txt file or standard input. Raises UserError if it is in another encoding."""
    if source == STANDARD_INPUT:
        if sys.stdin is None:
            raise UserError("input=- reads standard input, and there is none: name a .txt file")
        name, text = "standard input", decoded(sys.stdin.buffer.read(), "standard input", encoding)
    else:
        name, text = Path(source).name, read_text(Path(source), encoding)
    lines = text.removesuffix("\n").split("\n")  # only newlines end a line: texts may hold other separators
    return [Row(f"{name}, line {number}: ", {LINE: line.rstrip("\r")}) for number, line in enumerate(lines, start=1)]
