"""Messages about data for people: lists, class counts, suspicious names."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Column, Table

from thaw.console import as_text
from thaw.data.spellings import spellings


def missing_classes(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> list[str]:
    """Return a warning for each split that lacks classes.

    Args:
        counts: Samples of each class, by split.
        class_names: Names of the classes.
    """
    warnings = []
    for part, row in counts.items():
        if missing := [name for name, count in zip(class_names, row, strict=True) if not count]:
            warnings.append(f"{part} has no sample of the class {', '.join(missing)}")
    return warnings


def similar_classes(class_names: Sequence[str]) -> list[str]:
    """Return a warning if classes are probably one, written in several ways."""
    lines = [" = ".join(f"'{name}'" for name in names) for names in spellings(class_names)]
    what = "groups of classes differ only in how they are written, so each is learnt as a class of its own"
    return [format_list(what, lines)] if lines else []


def format_list(what: str, lines: Sequence[str], most: int = 20) -> str:
    """Return the number of lines and `what` they are, then the first `most` of them, indented."""
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:most]), *more])


def counts_table(
    class_names: Sequence[str], counts: Mapping[str, Sequence[int]], last: tuple[str, Sequence[int]] | None = None
) -> str:
    """Return a table with a row for each class and a column for each split; zeros are shown as a dash.

    `last` is the name and the numbers of the last row; by default the number of classes and the sums.
    """
    table = Table("class", *(Column(name, justify="right") for name in counts))
    for name, *row in zip(class_names, *counts.values(), strict=True):
        table.add_row(escape(name), *(f"{count:,}" if count else "-" for count in row))
    table.add_section()
    what, numbers = last or (f"{len(class_names)} classes", [sum(column) for column in counts.values()])
    table.add_row(what, *(f"{number:,}" for number in numbers))
    return as_text(table)
