"""The record that a run keeps of its samples: identity, label and split of each."""

import csv
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

COLUMNS = ["sample", "content", "label", "split"]
UNUSED = ""
"""Stands for the split of samples that are in none, as with data.labels_per_class."""


class Sample(NamedTuple):
    """Identity of a sample, the same wherever the data lie."""

    name: str
    """Name for people, such as a relative path."""
    content: str = ""
    """Digest of its content; empty if there is none."""


class SampleRecord(NamedTuple):
    """A sample with its label and its split in a run."""

    sample: Sample
    label: str
    """As `Labels.text` writes it: the name of a class, several names, or numbers."""
    split: str
    """train, val, test or UNUSED."""


def as_csv(samples: Iterable[SampleRecord]) -> str:
    """Return sample records as a csv table with the columns sample, content, label and split."""
    table = StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows([*sample, label, split] for sample, label, split in samples)
    return table.getvalue().rstrip("\n")


def from_csv(file: Path) -> list[SampleRecord]:
    """Read sample records that `as_csv` wrote. Raises ValueError if the file holds something else."""
    # File names may be in no encoding at all.
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        header, *rows = csv.reader(opened)
    if header != COLUMNS:
        raise ValueError(f"its first row is not {','.join(COLUMNS)}")
    return [SampleRecord(Sample(name, content), label, split) for name, content, label, split in rows]


def counts_by_label(
    samples: Sequence[SampleRecord], splits: Sequence[str], counted: Callable[[str], Sequence[str]]
) -> dict[str, dict[str, int]]:
    """Return the number of samples of each label in each of `splits`; samples in no split are not counted.

    `counted`: the names under which a label is counted, see `Labels.counted`.
    """
    names = sorted({name for sample in samples for name in counted(sample.label)})
    counts = {name: dict.fromkeys(splits, 0) for name in names}
    for _, label, split in samples:
        for name in counted(label) if split != UNUSED else ():
            counts[name][split] += 1
    return counts
