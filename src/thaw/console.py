"""Rich tables as plain text, for the console and the log file alike."""

from collections.abc import Iterable, Iterator
from io import StringIO
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import track

T = TypeVar("T")


def as_text(thing: RenderableType) -> str:
    """A table or tree of rich as plain text, 120 characters wide."""
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, with a progress bar on the terminal. Without a terminal nothing is shown."""
    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)
