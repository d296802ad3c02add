"""List the cache of this machine: `python -m thaw.cache`. With `budget_gb=2`, entries beyond 2 GB are deleted."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Column, Table

from thaw.config.command import command
from thaw.console import as_text

if TYPE_CHECKING:
    from thaw.caching.entry import CacheEntry


@command("cache")
def main(cfg: DictConfig) -> None:
    """Print the table."""
    print(cache(cfg.budget_gb))


def cache(budget_gb: float | None) -> str:
    """A table of all entries, the least recently used first.

    With a budget in gigabytes, the least recently used entries beyond it are deleted first. A run that has a deleted
    entry open can still read it; the next run computes it again.
    """
    from thaw.caching.store import entries, prune  # torch is slow to import: not for `--help`
    from thaw.storage import cache_folder

    folder = cache_folder()
    if budget_gb is None:
        return entries_table(folder, entries(folder))
    deleted = prune(folder, budget_gb * 1e9)
    size_gb = sum(entry.num_bytes for entry in deleted) / 1e9
    return f"{entries_table(folder, entries(folder))}deleted {len(deleted)} entries, {size_gb:.2f} GB"


def entries_table(folder: Path, entries: "Sequence[CacheEntry]") -> str:
    """A table with a row per entry and their total size."""
    size, run = Column("MB", justify="right"), Column("made by", overflow="fold")
    table = Table("last used", size, "what", "of", run, title=str(folder), title_justify="left")
    for entry in entries:
        last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        unreadable = "unfinished" if entry.is_unfinished else "damaged"
        facts = [entry.about.get("what", unreadable), entry.about.get("samples", ""), entry.about.get("run", "")]
        table.add_row(last_used, f"{entry.num_bytes / 1e6:,.1f}", *(escape(str(fact)) for fact in facts))
    table.add_section()
    total = sum(entry.num_bytes for entry in entries)
    table.add_row("", f"{total / 1e6:,.1f}", f"{len(entries)} entries")
    return as_text(table)


if __name__ == "__main__":
    main()
