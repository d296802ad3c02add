"""Texts to classify."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.table import SUFFIXES, Row, decoded, read_table
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.types import TokenSpec


class TextPredictionDataset(PredictionDataset):
    """Texts become batches of token ids and masks (B, T), those of similar length together."""

    column = "text"
    numbered = True
    workers = 0

    def __init__(self, rows: Sequence[Row], column: str, spec: TokenSpec):
        super().__init__([row.values.get(column, "") for row in rows])
        self.rows = rows
        self.tokens = tokenise(self.names, spec)

    def place(self, index: int) -> str:
        return self.rows[index].place.removesuffix(": ")

    def batches(self, batch_size: int) -> list[list[int]]:
        by_length = np.argsort(self.tokens.lengths, kind="stable").tolist()
        return [[by_length[i] for i in batch] for batch in super().batches(batch_size)]

    def __getitem__(self, indices: list[int]) -> tuple[dict[str, Tensor] | None, list[str | None]]:
        faults = [self._fault(index) for index in indices]
        usable = [index for index, fault in zip(indices, faults, strict=True) if fault is None]
        return self.tokens.batch(usable) if usable else None, faults

    def on_device(self, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def notes(self) -> list[str]:
        cut = int(self.tokens.cut.sum())
        most = self.tokens.spec.max_length_tokens
        return (
            [f"{cut} of {len(self)} texts are longer than {most} tokens: what comes after is not read"] if cut else []
        )

    def _fault(self, index: int) -> str | None:
        if self.rows[index].fault is not None:
            return self.rows[index].fault
        if not self.names[index].strip():
            return "empty"
        return "nothing in it that is a token" if self.tokens.empty[index] else None


def input_texts(source: str, column: str, encoding: str, quotes: bool) -> list[Row]:
    """The rows of a table, the lines of a .txt file, or `source` itself where it does not end like one, in `column`."""
    if not source.lower().endswith((*SUFFIXES, ".txt")):
        return [Row("the text: ", {column: source})]
    path = Path(os.path.expanduser(source))
    if not path.is_file():
        raise UserError(
            f"input={source} does not exist, or is no file: name a table, a .txt file, or a text that does not end so"
        )
    if path.suffix.lower() == ".txt":
        lines = decoded(path, encoding).removesuffix("\n").split("\n")  # at no other ends of lines: texts may hold them
        return [
            Row(f"{path.name}, line {number}: ", {column: line.rstrip("\r")})
            for number, line in enumerate(lines, start=1)
        ]
    return read_table(path, {"column": column}, encoding, quotes)
