"""Rich tables as plain text, for the console and the log file alike, also for consoles without Unicode."""

import codecs
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from io import BufferedWriter, FileIO, StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
LINES = {
    **{chr(code): "+" for code in range(0x2500, 0x2580)},  # corners and crossings of box drawing
    **dict.fromkeys("─━┄┅┈┉═╌╍", "-"),
    **dict.fromkeys("│┃┆┇┊┋║╎╏", "|"),
}
"""ASCII for the lines of tables."""


def as_text(thing: "RenderableType") -> str:
    """A table or tree of rich as plain text, 120 characters wide."""
    from rich.console import Console  # here, because a wrong command need not wait for it

    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, with a progress bar on the terminal. Without a terminal nothing is shown."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def print_anything() -> None:
    """Let stdout and stderr print what their encoding (cp1252, ASCII) lacks: lines of tables as - | +, the rest as ?"""
    codecs.register_error("thaw.lines", _as_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="thaw.lines")


def outlive_readers() -> None:
    """Let a command go on when nobody reads what it prints any more: after `| head -1`, or with its terminal closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Windows has consoles of its own kind, tests have streams of theirs.
        if os.name != "nt" and stream is getattr(sys, f"__{name}__") and isinstance(stream, TextIOWrapper):
            raw = _LastingStream(stream.fileno(), "w", closefd=False)
            lasting: Any = raw if stream.write_through else BufferedWriter(raw)  # python -u
            text = TextIOWrapper(
                lasting,
                stream.encoding,
                stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, text)


class _LastingStream(FileIO):
    """A standard stream: without a reader, what is written goes nowhere."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return len(data)


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(LINES.get(character, "?") for character in lacking), error.end
