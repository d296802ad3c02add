"""Messages about data for people: class counts, suspicious samples, samples that cannot be used."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Column, Table

from thaw.console import as_text
from thaw.data.source import SourceFacts
from thaw.data.spellings import spellings
from thaw.types import Indices


def missing_classes(parts: Mapping[str, Indices], targets: NDArray[Any], class_names: Sequence[str]) -> list[str]:
    """Return a warning for each split that lacks classes.

    Args:
        parts: Sample indices of each split.
        targets: Class index of every sample, (N,).
        class_names: Names of the classes.
    """
    warnings = []
    for part, indices in parts.items():
        present = set(targets[indices].tolist())
        if missing := [label for number, label in enumerate(class_names) if number not in present]:
            warnings.append(f"{part} has no sample of the class {', '.join(missing)}")
    return warnings


def similar_classes(class_names: Sequence[str]) -> list[str]:
    """Return a warning if classes are probably one, written in several ways."""
    lines = [" = ".join(f"'{name}'" for name in names) for names in spellings(class_names)]
    what = "groups of classes differ only in how they are written, so each is learnt as a class of its own"
    return [format_list(what, lines)] if lines else []


def identical_samples(parts: Mapping[str, Indices], targets: NDArray[Any], facts: SourceFacts) -> list[str]:
    """Return warnings about samples of equal digests that lie in different splits or have different labels."""
    part_of = {index: part for part, indices in parts.items() for index in indices.tolist()}
    groups = defaultdict(list)
    for index, digest in enumerate(facts.digests or ()):
        groups[digest].append(index)
    leaks, contradictions = [], []
    for group in groups.values():
        if len(group) == 1:
            continue
        names = " = ".join(facts.name(index) for index in group)
        if len({part_of[index] for index in group if index in part_of}) > 1:
            leaks.append(names)
        if len(set(targets[group].tolist())) > 1:
            contradictions.append(names)
    warnings, identical = [], f"groups of identical {facts.things}"
    if leaks:
        warnings.append(format_list(f"{identical} lie in different splits, so scores will flatter", leaks))
    if contradictions:
        warnings.append(format_list(f"{identical} have different labels", contradictions))
    return warnings


def format_list(what: str, lines: Sequence[str], most: int = 20) -> str:
    """Return the number of lines and `what` they are, then the first `most` of them, indented."""
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:most]), *more])


def counts_table(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Return a table with a row for each class and a column for each split; zeros are shown as a dash."""
    table = Table("class", *(Column(name, justify="right") for name in counts))
    for name, *row in zip(class_names, *counts.values(), strict=True):
        table.add_row(escape(name), *(f"{count:,}" if count else "-" for count in row))
    table.add_section()
    table.add_row(f"{len(class_names)} classes", *(f"{sum(column):,}" for column in counts.values()))
    return as_text(table)
