"""The confusion matrix of a test, as a run folder keeps it: a row a true class, a column a predicted one."""

import csv
from io import StringIO
from pathlib import Path
from typing import NamedTuple


class Confusion(NamedTuple):
    class_names: list[str]
    counts: list[list[int]]
    """(C, C), true class by predicted class."""


def confusion_csv(confusion: Confusion) -> str:
    table = StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["true \\ predicted", *confusion.class_names])
    rows.writerows([name, *counts] for name, counts in zip(*confusion, strict=True))
    return table.getvalue().rstrip("\n")


def read_confusion(file: Path) -> Confusion:
    # Names of classes may be of no encoding at all.
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        (_, *class_names), *rows = csv.reader(opened)
    return Confusion(class_names, [[int(count) for count in row[1:]] for row in rows])
