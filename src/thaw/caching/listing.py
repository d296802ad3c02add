"""What is kept, for people."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from thaw.caching.store import UNFINISHED, Entry
from thaw.console import as_text


def files_table(folder: Path, files: Sequence[Entry]) -> str:
    """A row a file, and their sum."""
    table = Table(
        "last used",
        Column("MB", justify="right"),
        "what",
        "of",
        Column("made by", overflow="fold"),
        title=str(folder),
        title_justify="left",
    )
    for entry in files:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        unknown = "unfinished" if entry.path.suffix == UNFINISHED else "damaged"
        facts = (str(entry.about.get(key, "")) for key in ("samples", "run"))
        what = entry.about.get("what", unknown)
        table.add_row(used, f"{entry.num_bytes / 1e6:,.1f}", escape(what), *map(escape, facts))
    table.add_section()
    total = sum(entry.num_bytes for entry in files)
    table.add_row("", f"{total / 1e6:,.1f}", f"{len(files)} files")
    return as_text(table)
