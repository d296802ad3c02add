"""Rich tables as plain text, for the console and the log file alike, also for consoles without Unicode."""

import codecs
import sys
from collections.abc import Iterable, Iterator
from io import StringIO, TextIOWrapper
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import track

T = TypeVar("T")
LINES = {
    **{chr(code): "+" for code in range(0x2500, 0x2580)},  # corners and crossings of box drawing
    **dict.fromkeys("─━┄┅┈┉═╌╍", "-"),
    **dict.fromkeys("│┃┆┇┊┋║╎╏", "|"),
}
"""ASCII for the lines of tables."""


def as_text(thing: RenderableType) -> str:
    """A table or tree of rich as plain text, 120 characters wide."""
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, with a progress bar on the terminal. Without a terminal nothing is shown."""
    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def print_anything() -> None:
    """Let stdout and stderr print what their encoding (cp1252, ASCII) lacks: lines of tables as - | +, the rest as ?"""
    codecs.register_error("thaw.lines", _as_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="thaw.lines")


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(LINES.get(character, "?") for character in lacking), error.end
