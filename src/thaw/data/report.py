"""What is odd about data, for people."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from thaw.console import as_text

if TYPE_CHECKING:
    from thaw.data.module import DataModule


def oddities(data: "DataModule", contents: Sequence[bytes], name: Callable[[int], str], things: str) -> list[str]:
    """Classes that a split lacks; samples of equal content in different splits, or with different labels."""
    found = []
    for part, indices in data.parts.items():
        missing = [c for c, n in zip(data.class_names, data.counts(indices), strict=True) if not n]
        if missing:
            found.append(f"{part} has no sample of the class {', '.join(missing)}")
    part_of = {index: part for part, indices in data.parts.items() for index in indices.tolist()}
    across, labels = [], []
    for group in _identical(contents):
        names = " = ".join(name(i) for i in group)
        if len({part_of[i] for i in group if i in part_of}) > 1:
            across.append(names)
        if len({data.targets[i] for i in group}) > 1:
            labels.append(names)
    if across:
        found.append(listed(f"groups of identical {things} lie in different splits, so scores will flatter", across))
    if labels:
        found.append(listed(f"groups of identical {things} have different labels", labels))
    return found


def listed(what: str, lines: Sequence[str], most: int = 20) -> str:
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:most]), *more])


def _identical(contents: Sequence[bytes]) -> list[list[int]]:
    groups = defaultdict(list)
    for index, content in enumerate(contents):
        groups[content].append(index)
    return [group for group in groups.values() if len(group) > 1]


def counts_table(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """A row a class, a column a part; zeros are shown as a dash."""
    table = Table("class", *(Column(name, justify="right") for name in counts))
    for name, *row in zip(class_names, *counts.values(), strict=True):
        table.add_row(escape(name), *(f"{count:,}" if count else "-" for count in row))
    table.add_section()
    table.add_row(f"{len(class_names)} classes", *(f"{sum(column):,}" for column in counts.values()))
    return as_text(table)
