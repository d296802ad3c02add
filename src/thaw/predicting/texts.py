"""Texts to classify."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.table import Row, read_table, read_text, table_suffix
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.types import TokenSpec

TEXT = "text"
"""Column of texts that do not come from a table."""


class TextPredictionDataset(PredictionDataset):
    """Rows with a text in `column`, loaded as batches of token ids and masks (B, T); similar lengths share a batch."""

    columns = ("row", "text")  # the number of the row, because a text does not say where it stood
    default_workers = 0

    def __init__(self, rows: Sequence[Row], column: str, spec: TokenSpec):
        super().__init__([row.values.get(column, "") for row in rows])
        self.rows = rows
        self.tokens = tokenise(self.names, spec)
        self.order = np.argsort(self.tokens.lengths, kind="stable").tolist()

    def __getitem__(self, indices: list[int]) -> tuple[dict[str, Tensor] | None, list[str | None]]:
        faults = [self._fault(index) for index in indices]
        usable = [index for index, fault in zip(indices, faults, strict=True) if fault is None]
        return self.tokens.batch(usable) if usable else None, faults

    def to_network(self, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Move the tensors to the device."""
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def identify(self, index: int) -> tuple[int, str]:
        """Number of the row, from 1, and its text."""
        return index + 1, self.names[index]

    def place(self, index: int) -> str:
        """File and line of a text."""
        return self.rows[index].place.removesuffix(": ")

    def notes(self) -> list[str]:
        """How many texts are truncated."""
        count, limit = int(self.tokens.cut.sum()), self.tokens.spec.max_length_tokens
        note = f"{count} of {len(self)} texts are longer than {limit} tokens: the rest of them is not read"
        return [note] if count else []

    def _fault(self, index: int) -> str | None:
        if self.rows[index].fault is not None:
            return self.rows[index].fault
        if not self.names[index].strip():
            return "empty"
        return "contains no token" if self.tokens.empty[index] else None


def read_texts(source: str, column: str | None, encoding: str, quotes: bool, spec: TokenSpec) -> TextPredictionDataset:
    """Read the rows of a table or the lines of a .txt file; a `source` that names neither is itself the text.

    Raises:
        UserError: if there is no such file, or if it cannot be read.
    """
    path = Path(source).expanduser()
    is_text_file = path.suffix.lower() == ".txt"
    if not is_text_file and table_suffix(path) is None:
        rows = [Row("the text: ", {TEXT: source})]
    elif not path.is_file():
        raise UserError(
            f"input={source} does not exist, or is no file: name a table, a .txt file, or a text with another ending"
        )
    elif is_text_file:
        # Only newlines end a line: texts may hold other separators.
        lines = [line.rstrip("\r") for line in read_text(path, encoding).removesuffix("\n").split("\n")]
        rows = [Row(f"{path.name}, line {number}: ", {TEXT: line}) for number, line in enumerate(lines, start=1)]
    else:
        if column is None:
            raise UserError(f"input={source} is a table, and the run does not say where its texts are: type column=...")
        rows = read_table(path, {"column": column}, encoding, quotes)
        return TextPredictionDataset(rows, column, spec)
    return TextPredictionDataset(rows, TEXT, spec)
