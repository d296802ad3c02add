"""Texts that tables hold: a column of texts, a column of labels and, if wanted, one of splits."""

import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from thaw.data.report import listed
from thaw.data.splits import SPLIT_NAMES
from thaw.data.table import SUFFIXES, Row, read_table, split_in, wrong_rows
from thaw.data.text_module import TextDataModule
from thaw.errors import UserError

ON_BAD = ("error", "leave_out")


class Labelled(NamedTuple):
    text: str
    label: str
    split: str | None


class TextTable(TextDataModule):
    """`table`: a file, or a folder with train.csv and, if there are such, val.csv and test.csv (.tsv, .jsonl).

    `on_bad`: "error" raises a ValueError that names every row without a text or a label; "leave_out" goes on without
    them. Takes the keywords of `TextDataModule` and `DataModule`.
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
        **choices: Any,
    ):
        if on_bad not in ON_BAD:
            raise UserError(f"data.on_bad is {' or '.join(ON_BAD)}, not '{on_bad}'")
        columns = {"data.text": text, "data.label": label}
        if split_column is not None:
            columns["data.split_column"] = split_column
        if text == label:
            raise UserError(f"data.text and data.label both name the column {text}")
        notes: list[str] = []
        samples: list[Labelled] = []
        faults: list[str] = []
        total = 0
        for split, file in _files(Path(table).expanduser(), split_column, notes):
            rows = read_table(file, columns, encoding, quotes)
            total += len(rows)
            _sort(rows, split, columns, samples, faults)
        if faults and on_bad == "error":
            raise UserError(
                f"{wrong_rows(table, faults, total)}\nMend them, or type data.on_bad=leave_out to go on without them."
            )
        if not samples:
            raise UserError("no text is left to learn from:\n" + listed("rows are wrong", faults))
        super().__init__(*zip(*samples, strict=True), **choices)
        self.left_out, self.notes = faults, notes


def _files(table: Path, split_column: str | None, notes: list[str]) -> list[tuple[str | None, Path]]:
    """(split, file) for each; to `notes` goes what else lies there."""
    if not table.is_dir():
        return [(None, table)]
    found: dict[str, Path] = {}
    for file in sorted(table.iterdir()):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is None or file.suffix.lower() not in SUFFIXES:
            notes.append(f"{file} (not train, val or test as .csv, .tsv or .jsonl)")
        elif (other := found.setdefault(split, file)) != file:
            raise UserError(f"{other} and {file} are the same split: keep one of them, or name one: data.table=...")
    if not found:
        raise UserError(f"{table} holds no table called train, val or test ({', '.join(SUFFIXES)}): data.table=<file>")
    if split_column is not None:
        raise UserError(
            f"{table} has a file for each split, and data.split_column={split_column} says it again: take one of them"
        )
    return [(split, found[split]) for split in sorted(found)]


def _sort(
    rows: list[Row], split: str | None, columns: dict[str, str], samples: list[Labelled], faults: list[str]
) -> None:
    """The rows of one file into `samples`, those that are wrong into `faults`."""
    for row in rows:
        try:
            sample = _labelled(row, *columns.values())
        except ValueError as fault:
            faults.append(f"{row.place}{fault}")
        else:
            samples.append(sample if split is None else sample._replace(split=split))


def _labelled(row: Row, text_column: str, label_column: str, split_column: str | None = None) -> Labelled:
    text, label = row[text_column], unicodedata.normalize("NFC", row[label_column].strip())
    if not text.strip():
        raise UserError(f"no text in column {text_column}")
    if not label:
        raise UserError(f"no label in column {label_column}")
    return Labelled(text, label, split_in(row, split_column))
