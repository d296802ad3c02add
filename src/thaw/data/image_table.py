"""Labelled image files from a table: a column of paths, a column of labels and, optionally, a column of splits."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from thaw.data.class_labels import ClassLabels
from thaw.data.image_files import ImageFiles, LabelledFile
from thaw.data.labels import Labels, label_columns
from thaw.data.table import group_in, read_table, split_in, wrong_rows
from thaw.errors import UserError

PATTERN = set(r"()[]*+?|^$\\")
"""Characters of regular expressions: a `group` without any of them is the name of a column."""


class ImageTable(ImageFiles):
    """Source of the image files that a table names.

    Args:
        table: A csv, tsv, json, jsonl or parquet file.
        root: Folder that the paths are relative to and must not leave; None for the folder of the table.
        path_column: Column of the paths.
        label_column: Column of the labels; several with task=multi_label (0 and 1) and task=regression (numbers).
        split_column: Column that says train, val or test; None to split by fractions.
        encoding: Encoding of the table, such as utf-8-sig.
        quotes: Whether values of csv and tsv may stand in double quotes.
        on_bad: What to do if images cannot be loaded: "error" or "leave_out".
        max_value: Value of grey 16-bit images that is white; None for 65535.
        group: Column of what must share a split, such as the patient. Where the table has no such column, a regular
            expression that finds it in the path. None if images do not belong together.
        label_separator: What stands between several labels in one column.
        kind: Kind of the labels.

    Raises:
        UserError: naming every row that cannot be used, or see `ImageFiles`.
    """

    def __init__(
        self,
        table: str,
        root: str | None,
        path_column: str,
        label_column: str | Sequence[str],
        split_column: str | None,
        encoding: str,
        quotes: bool,
        on_bad: str,
        max_value: int | None = None,
        group: str | None = None,
        label_separator: str = "|",
        kind: type[Labels] = ClassLabels,
    ):
        labels = label_columns(label_column, "data.label_column", kind)
        table_file = Path(table).expanduser()
        folder = root_of(table_file, root)
        columns = {
            "data.path_column": path_column,
            "data.label_column": labels,
            "data.split_column": split_column,
            "data.group": None if group is None or set(group) & PATTERN else group,
        }
        rows = read_table(table_file, columns, encoding, quotes, labels if kind.takes_lists else ())
        group_column = group if any(group in row.values for row in rows) else None
        files: dict[Path, LabelledFile] = {}
        samples: list[LabelledFile] = []
        faults: list[str] = []
        for row in rows:
            try:
                file = confined(row[path_column], folder, path_column, "data.root=<folder>")
                label, split = kind.read(row, labels, label_separator), split_in(row, split_column)
                sample = LabelledFile(file, label, split, group_in(row, group_column), row.place)
                if (other := files.setdefault(file, sample)).label != sample.label:
                    raise UserError(f"{file} is '{sample.label}' here and '{other.label}' in {other.place}")
                samples.append(sample)
            except UserError as fault:
                faults.append(f"{row.place}{fault}")
        if faults:
            raise UserError(wrong_rows(table, faults, len(rows)))
        numbered = partial(kind.numbered, columns=labels)
        super().__init__(folder, samples, [], on_bad, max_value, group if group_column is None else None, numbered)


def root_of(table: Path, root: str | None) -> Path:
    """Folder that the paths in a table are relative to: `root`, or the table's. It is absolute, without ".."."""
    return Path(os.path.abspath(table.parent if root is None else Path(root).expanduser()))


def confined(path: str, root: Path, column: str, typed: str) -> Path:
    """The file that a table names below `root`. Raises UserError if there is none; `typed` would name another root."""
    if not path:
        raise UserError(f"no path in column {column}")
    file = Path(os.path.normpath(root / path))
    if not file.is_relative_to(root):
        raise UserError(f"the path {path} leaves {root}: name the folder above all images with {typed}")
    return file
