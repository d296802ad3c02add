"""Rich tables as plain text, for the console and the log file alike."""

from io import StringIO

from rich.console import Console, RenderableType


def as_text(thing: RenderableType) -> str:
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]
