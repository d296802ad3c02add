"""Labelled texts from tables: one or two columns of texts, one of labels and, optionally, of splits and groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thaw.data.class_labels import ClassLabels
from thaw.data.labels import Labels
from thaw.data.labels import label_columns as columns_of_labels
from thaw.data.pairs import Text, columns_of, text_of
from thaw.data.report import format_list
from thaw.data.splits import SPLIT_NAMES
from thaw.data.table import SUFFIXES_SHOWN, group_in, read_table, split_in, table_suffix, wrong_rows
from thaw.errors import UserError


class TextTable:
    """Source of labelled texts from one table, or from one table for each split.

    Args:
        table: A table (see `read_table`), or a folder with a table called train and, optionally, val and test.
        text: Column of the texts; two columns for pairs of texts, such as premise and hypothesis.
        label: Column of the labels; several columns with task=multi_label (0 and 1) and task=regression (numbers).
        split_column: Column that says train, val or test; None to split by fractions.
        encoding: Encoding of the tables, such as utf-8-sig.
        quotes: Whether values of csv and tsv may stand in double quotes.
        on_bad: What to do if rows have no text or no label: "error" or "leave_out".
        group: Column of what must share a split, such as the author; None if rows do not belong together.
        label_separator: What stands between several labels in one column.
        kind: Kind of the labels.

    Raises:
        UserError: naming every row that cannot be used, unless `on_bad` is "leave_out".
    """

    def __init__(
        self,
        table: str,
        text: str | Sequence[str],
        label: str | Sequence[str],
        split_column: str | None,
        encoding: str,
        quotes: bool,
        on_bad: str,
        group: str | None = None,
        label_separator: str = "|",
        kind: type[Labels] = ClassLabels,
    ):
        text_columns, label_columns = columns_of(text, "data.text"), columns_of_labels(label, "data.label", kind)
        if both := [column for column in label_columns if column in (*text_columns, group)]:
            other = "data.text" if both[0] in text_columns else "data.group"
            raise UserError(f"{other} and data.label both name the column {both[0]}")
        columns = {
            "data.text": text_columns,
            "data.label": label_columns,
            "data.split_column": split_column,
            "data.group": group,
        }
        lists = label_columns if kind.takes_lists else ()
        tables, self.notes = _tables(Path(table).expanduser(), split_column)
        samples: list[tuple[Text, Any, str | None, str | None]] = []
        self.left_out: list[str] = []
        for file, split in tables.items():
            for row in read_table(file, columns, encoding, quotes, lists):
                try:
                    if empty := [column for column in text_columns if not row[column].strip()]:
                        raise UserError(f"no text in column {empty[0]}")
                    said = text_of([row[column] for column in text_columns])
                    told = kind.read(row, label_columns, label_separator)
                    samples.append((said, told, split or split_in(row, split_column), group_in(row, group)))
                except UserError as fault:
                    self.left_out.append(f"{row.place}{fault}")
        if self.left_out and on_bad == "error":
            raise UserError(
                f"{wrong_rows(table, self.left_out, len(samples) + len(self.left_out))}\n"
                "Fix them, or type data.on_bad=leave_out to go on without them."
            )
        if not samples:
            raise UserError("no text is left to learn from:\n" + format_list("rows are wrong", self.left_out))
        self.texts, labels, self.splits, groups = zip(*samples, strict=True)
        self.groups = None if group is None else groups
        numbered = kind.numbered(labels, label_columns)
        self.class_names, self.targets = numbered.names, numbered.targets

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Text, Any]:
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
