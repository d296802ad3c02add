"""Labelled texts from tables: a column of texts, a column of labels and, optionally, a column of splits."""

from collections.abc import Mapping
from pathlib import Path

from thaw.data.report import format_list
from thaw.data.source import number_labels
from thaw.data.splits import SPLIT_NAMES
from thaw.data.table import SUFFIXES_SHOWN, label_in, read_table, split_in, table_suffix, wrong_rows
from thaw.errors import UserError


class TextTable:
    """Source of labelled texts from one table, or from one table for each split.

    Args:
        table: A table (see `read_table`), or a folder with a table called train and, optionally, val and test.
        text: Column of the texts.
        label: Column of the labels.
        split_column: Column that says train, val or test; None to split by fractions.
        encoding: Encoding of the tables, such as utf-8-sig.
        quotes: Whether values of csv and tsv may stand in double quotes.
        on_bad: What to do if rows have no text or no label: "error" or "leave_out".

    Raises:
        UserError: naming every row that cannot be used, unless `on_bad` is "leave_out".
    """

    def __init__(
        self,
        table: str,
        text: str,
        label: str,
        split_column: str | None,
        encoding: str,
        quotes: bool,
        on_bad: str,
    ):
        if text == label:
            raise UserError(f"data.text and data.label both name the column {text}")
        columns = {"data.text": text, "data.label": label, "data.split_column": split_column}
        tables, self.notes = _tables(Path(table).expanduser(), split_column)
        samples: list[tuple[str, str, str | None]] = []
        self.left_out: list[str] = []
        for file, split in tables.items():
            for row in read_table(file, columns, encoding, quotes):
                try:
                    if not row[text].strip():
                        raise UserError(f"no text in column {text}")
                    samples.append((row[text], label_in(row, label), split or split_in(row, split_column)))
                except UserError as fault:
                    self.left_out.append(f"{row.place}{fault}")
        if self.left_out and on_bad == "error":
            raise UserError(
                f"{wrong_rows(table, self.left_out, len(samples) + len(self.left_out))}\n"
                "Fix them, or type data.on_bad=leave_out to go on without them."
            )
        if not samples:
            raise UserError("no text is left to learn from:\n" + format_list("rows are wrong", self.left_out))
        self.texts, labels, self.splits = zip(*samples, strict=True)
        self.class_names, self.targets = number_labels(labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.texts[index], self.targets[index]


def _tables(table: Path, split_column: str | None) -> tuple[Mapping[Path, str | None], list[str]]:
    """Return the tables to read, each with its split, and what else lies in the folder."""
    if not table.is_dir():
        return {table: None}, []
    files: dict[str, Path] = {}
    notes = []
    for file in sorted(table.iterdir()):
        suffix = table_suffix(file)
        split = SPLIT_NAMES.get(file.name.lower().removesuffix(suffix)) if suffix else None
        if split is None:
            notes.append(f"{file} (no table called train, val or test)")
        elif (other := files.setdefault(split, file)) != file:
            raise UserError(f"{other} and {file} are the same split: keep one of them, or name one: data.table=...")
    if not files:
        raise UserError(f"{table} holds no table called train, val or test ({SUFFIXES_SHOWN}): data.table=<file>")
    if split_column is not None:
        raise UserError(
            f"{table} has a file for each split, and data.split_column={split_column} says it again: take one of them"
        )
    return {files[split]: split for split in sorted(files)}, notes
