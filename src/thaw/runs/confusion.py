"""The confusion matrix of a test as a CSV file: a row for each true class, a column for each predicted one."""

import csv
from io import StringIO
from pathlib import Path
from typing import NamedTuple


class Confusion(NamedTuple):
    """A confusion matrix with its class names."""

    class_names: list[str]
    counts: list[list[int]]
    """(C, C), true class by predicted class."""


def confusion_csv(confusion: Confusion) -> str:
    """Return the text of the file, without a line break at the end."""
    table = StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["true \\ predicted", *confusion.class_names])
    rows.writerows([name, *counts] for name, counts in zip(*confusion, strict=True))
    return table.getvalue().rstrip("\n")


def read_confusion(file: Path) -> Confusion:
    """Read a file that holds what `confusion_csv` returned."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:  # names may be in no encoding
        (_, *class_names), *rows = csv.reader(opened)
    return Confusion(class_names, [[int(count) for count in row[1:]] for row in rows])
