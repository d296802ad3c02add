"""Photographs that a table names: a column of paths, a column of labels and, if wanted, one of splits."""

import os
import unicodedata
from pathlib import Path
from typing import Any

from thaw.data.image_files import ImageFileDataModule, LabelledFile
from thaw.data.table import Row, read_table, split_in, wrong_rows
from thaw.errors import UserError


class ImageTable(ImageFileDataModule):
    """Image files by `table`; paths are relative to `root` (None: the table's folder) and stay inside it.

    Takes the keywords of `ImageFileDataModule` and `DataModule`, too.
    """

    def __init__(
        self,
        table: str,
        root: str | None,
        path_column: str,
        label_column: str,
        split_column: str | None,
        encoding: str,
        quotes: bool,
        **choices: Any,
    ):
        file = Path(table).expanduser()
        # Whole, so that `..` in a path shows.
        folder = Path(os.path.abspath(file.parent if root is None else Path(root).expanduser()))
        columns = {"data.path_column": path_column, "data.label_column": label_column}
        if split_column is not None:
            columns["data.split_column"] = split_column
        rows = read_table(file, columns, encoding, quotes)
        files: list[LabelledFile] = []
        faults: list[str] = []
        seen: dict[Path, LabelledFile] = {}
        for row in rows:
            try:
                sample = _labelled(row, folder, *columns.values())
                if (other := seen.setdefault(sample.file, sample)).label != sample.label:
                    raise UserError(f"{sample.file} is '{sample.label}' here and '{other.label}' in {other.place}")
                files.append(sample)
            except ValueError as fault:
                faults.append(f"{row.place}{fault}")
        if faults:
            raise UserError(wrong_rows(table, faults, len(rows)))
        super().__init__(folder, files, [], **choices)


def _labelled(
    row: Row, root: Path, path_column: str, label_column: str, split_column: str | None = None
) -> LabelledFile:
    named, label = row[path_column], unicodedata.normalize("NFC", row[label_column].strip())
    if not named:
        raise UserError(f"no path in column {path_column}")
    if not label:
        raise UserError(f"no label in column {label_column}")
    file = Path(os.path.normpath(root / named))
    if not file.is_relative_to(root):
        raise UserError(f"the path {named} leaves {root}: name the folder above all images with data.root=<folder>")
    return LabelledFile(file, label, split_in(row, split_column), row.place)
