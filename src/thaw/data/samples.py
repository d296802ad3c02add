"""What a run keeps of its samples: which there were, of which class, in which split."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

UNUSED = ""
"""The split of samples that take no part: few-shot."""


class Sample(NamedTuple):
    """What a sample is known by, wherever the data lies."""

    name: str
    content: str = ""
    """A digest, where there is one."""


class SampleRecord(NamedTuple):
    sample: Sample
    label: str
    split: str
    """train, val, test or UNUSED."""


def as_csv(samples: Iterable[SampleRecord]) -> str:
    table = StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["sample", "content", "label", "split"])
    rows.writerows([*sample, label, split] for sample, label, split in samples)
    return table.getvalue().rstrip("\n")


def from_csv(file: Path) -> list[SampleRecord]:
    # Names of files may be of no encoding at all.
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        rows = list(csv.reader(opened))[1:]
    return [SampleRecord(Sample(name, content), label, split) for name, content, label, split in rows]


def counts_by_label(samples: Sequence[SampleRecord], splits: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many samples each class had, by split."""
    found = {label: dict.fromkeys(splits, 0) for label in sorted({sample.label for sample in samples})}
    for _, label, split in samples:
        if split != UNUSED:
            found[label][split] += 1
    return found
