"""Texts to classify."""

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.pairs import as_one, columns_of, parts_of, text_of
from thaw.data.table import SUFFIXES, SUFFIXES_SHOWN, Row, read_table, table_suffix
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.predicting.lines import LINE, LINES_SUFFIXES, STANDARD_INPUT, holds_lines, read_lines
from thaw.types import TokenSpec

PAIR = ("text1", "text2")
"""Columns of the texts of a pair."""
SPREADSHEETS = (".xlsx", ".xls", ".ods")


class TextPredictionDataset(PredictionDataset):
    """Rows with a text, or a pair of them, in `columns`; batches of token ids and masks (B, T) of similar lengths."""

    default_workers = 0

    def __init__(self, rows: Sequence[Row], columns: Sequence[str], spec: TokenSpec):
        self.texts = [text_of([row.values.get(column, "") for column in columns]) for row in rows]
        super().__init__([as_one(text) for text in self.texts])
        # The number of the row, because a text does not say where it stood.
        self.columns = ("row", *(PAIR if spec.pairs else ("text",)))
        self.rows = rows
        self.tokens = tokenise(self.texts, spec)
        self.order = np.argsort(self.tokens.lengths, kind="stable").tolist()

    def __getitem__(self, indices: list[int]) -> tuple[dict[str, Tensor] | None, list[str | None]]:
        faults = [self._fault(index) for index in indices]
        usable = [index for index, fault in zip(indices, faults, strict=True) if fault is None]
        return self.tokens.batch(usable) if usable else None, faults

    def to_network(self, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Move the tensors to the device."""
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def identify(self, index: int) -> tuple[int | str, ...]:
        """Number of the row, from 1, and its text, or both of a pair."""
        return index + 1, *parts_of(self.texts[index])

    def place(self, index: int) -> str:
        """File and line of a text."""
        return self.rows[index].place.removesuffix(": ")

    def notes(self) -> list[str]:
        """How many texts are truncated."""
        count, limit = int(self.tokens.cut.sum()), self.tokens.spec.max_length_tokens
        things = "pairs" if self.tokens.spec.pairs else "texts"
        note = f"{count} of {len(self)} {things} are longer than {limit} tokens: the rest of them is not read"
        return [note] if count else []

    def _fault(self, index: int) -> str | None:
        if self.rows[index].fault is not None:
            return self.rows[index].fault
        if not all(part.strip() for part in parts_of(self.texts[index])):
            return "empty"
        return "contains no token" if self.tokens.empty[index] else None


def read_texts(
    source: str, column: str | Sequence[str] | None, encoding: str, quotes: bool, spec: TokenSpec
) -> TextPredictionDataset:
    """Read the rows of a table, or the lines of a .txt file or of standard input (`-`); else `source` is the text.

    A pair of texts stands in two columns of a table, or on one line with a tab between the texts.

    Raises:
        UserError: if `source` names a file that is not there or cannot be read, or a folder or files; or if the network
            reads pairs and `column` names one column, or the other way round.
    """
    path = os.path.expanduser(source)
    if holds_lines(source) and (source == STANDARD_INPUT or os.path.isfile(path)):
        return _of_lines(read_lines(path, encoding), spec)
    if table_suffix(Path(path)) is not None and os.path.isfile(path):
        if column is None:
            raise UserError(f"input={source} is a table, and the run does not say where its texts are: type column=...")
        columns = columns_of(column, "column")
        if (len(columns) == 2) != bool(spec.pairs):
            what = (
                "pairs of texts: type column=[<first>,<second>]" if spec.pairs else "single texts: type column=<name>"
            )
            raise UserError(f"column={','.join(columns)}, and the network was trained on {what}")
        return TextPredictionDataset(read_table(path, {"column": columns}, encoding, quotes), columns, spec)
    if (problem := _no_text(source, path)) is not None:
        raise UserError(
            f"input={source} {problem}: texts are read from a table ({SUFFIXES_SHOWN}), from a .txt file, or with "
            "input=- from standard input, one on each line. Save a spreadsheet as .csv, and join files of texts: "
            "cat texts/*.txt | python -m thaw.predict run=... input=-"
        )
    return _of_lines([Row("the text: ", {LINE: source})], spec)


def _of_lines(rows: Sequence[Row], spec: TokenSpec) -> TextPredictionDataset:
    if not spec.pairs:
        return TextPredictionDataset(rows, [LINE], spec)
    pairs = []
    for row in rows:
        texts = row[LINE].split("\t")
        fault = None if len(texts) == 2 else f"{len(texts)} texts, where a pair is two with a tab between them"
        pairs.append(Row(row.place, dict(zip(PAIR, texts, strict=False)), fault))
    return TextPredictionDataset(pairs, PAIR, spec)


def _no_text(source: str, path: str) -> str | None:
    """Say why `source`, of which `path` may be the file, is not a text; None if it is one."""
    if os.path.isdir(path):
        return "is a folder"
    if os.path.exists(path):
        return "is a file of a kind that is not read"
    if source.lower().endswith((*SUFFIXES, *LINES_SUFFIXES, *SPREADSHEETS)):
        return "does not exist"
    if has_magic(source) and (found := glob(path)):
        return f"is a pattern of files ({found[0]} ...)"
    return None
