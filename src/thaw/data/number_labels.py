"""Labels that are numbers: one or several measured quantities for each sample.

N: samples, T: quantities.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Column, Table

from thaw.console import as_text
from thaw.data.class_labels import class_indices
from thaw.data.describe import described
from thaw.data.labels import Labels
from thaw.data.table import MISSING, Row
from thaw.errors import UserError
from thaw.types import Indices

MOST_STRATA, LEAST_OF_STRATUM = 10, 20
"""Most parts of equal size that the numbers are cut into for stratified splits, and the least samples in each."""
QUANTITY = "value"
"""Name of a quantity that was told by the names of classes."""


class NumberLabels(Labels):
    """Measured quantities of each sample; `targets` are float64, (N, T)."""

    task = "regression"

    @classmethod
    def read(cls, row: Row, columns: Sequence[str], separator: str) -> list[float]:
        """The numbers in the columns."""
        return [_number(row[column], column) for column in columns]

    @classmethod
    def numbered(cls, labels: Sequence[Sequence[float]], columns: Sequence[str]) -> Self:
        """Quantities in the order of the columns."""
        return cls(columns, np.array(labels, dtype=np.float64))

    @classmethod
    def given(cls, names: Sequence[str], labels: Iterable[Any]) -> Self:
        """From rows of numbers, one for each name; or from class indices, where all names are numbers."""
        rows = list(labels)
        if len(rows) and np.ndim(rows[0]) == 0 and all(_is_number(name) for name in names):
            values = np.array([float(name) for name in names])
            return cls([QUANTITY], values[class_indices(rows, names), None])
        for number, row in enumerate(rows):
            if np.size(row) != len(names) or not _are_numbers(row):
                raise UserError(
                    f"the label of sample {number} is {described(row)}: expected {len(names)} numbers, one for each of "
                    f"class_names, the names of the quantities; or classes whose names are numbers"
                )
        return cls(names, np.array(rows, dtype=np.float64).reshape(len(rows), len(names)))

    @property
    def tensor(self) -> Any:
        """The targets as float32."""
        return super().tensor.float()

    @property
    def strata(self) -> NDArray[np.int64]:
        """The mean rank of a sample's quantities, cut into parts of equal size; equal means share a part."""
        columns = [np.unique(column, return_inverse=True)[1] for column in self.targets.T]
        ranks: NDArray[np.float64] = np.stack(columns).mean(axis=0)
        for parts in range(MOST_STRATA, 1, -1):
            edges = np.unique(np.quantile(ranks, np.arange(1, parts) / parts))
            strata: NDArray[np.int64] = np.digitize(ranks, edges)
            if np.bincount(strata).min() >= LEAST_OF_STRATUM:
                return strata
        return np.zeros(len(self), dtype=np.int64)

    @property
    def stratum_names(self) -> list[str]:
        """What stands for the parts in messages."""
        return [f"part {number + 1} of the numbers" for number in range(int(self.strata.max(initial=0)) + 1)]

    def text(self, index: int) -> str:
        """The numbers, with all their digits."""
        return "; ".join(as_number(value) for value in self.targets[index].tolist())

    @classmethod
    def counted(cls, text: str) -> list[str]:
        """All samples together."""
        return ["all"]

    def aligned(self, names: Sequence[str]) -> Self:
        """The quantities in the order of `names`."""
        if sorted(self.names) != sorted(names):
            raise UserError(
                f"the network was trained on {', '.join(names)}, and this data has {', '.join(self.names)}: name the "
                f"same columns"
            )
        return type(self)(names, self.targets[:, [self.names.index(name) for name in names]])

    def require_learnable(self, train: Indices, why: str) -> None:
        """Raise UserError if a quantity is the same number in all training samples."""
        same = [name for name, column in zip(self.names, self.targets[train].T, strict=True) if np.ptp(column) == 0]
        if same:
            raise UserError(f"{', '.join(same)} is the same number in all training samples: there is nothing to learn")

    def task_facts(self, train: Indices, weighs: bool) -> dict[str, Any]:
        """Mean and standard deviation of each quantity, by which the network's outputs are scaled."""
        if weighs:
            raise UserError("data.balance=loss weighs classes, and these labels are numbers: type data.balance=none")
        values = self.targets[train]
        return {"mean": values.mean(axis=0).tolist(), "std": values.std(axis=0).tolist()}

    def what(self) -> str:
        """The names of the quantities."""
        return f"{len(self.names)} {'quantity' if len(self.names) == 1 else 'quantities'} ({', '.join(self.names)})"

    def table(self, parts: Mapping[str, Indices]) -> str:
        """Mean, spread, smallest and largest value of each quantity in each split."""
        columns = ("samples", "mean", "std", "smallest", "median", "largest")
        table = Table("quantity", "split", *(Column(name, justify="right") for name in columns))
        for name, values in zip(self.names, self.targets.T, strict=True):
            for split, part in parts.items():
                own = values[part]
                numbers = [own.mean(), own.std(), own.min(), np.median(own), own.max()] if len(own) else []
                table.add_row(escape(name), split, f"{len(own):,}", *(f"{number:.4g}" for number in numbers))
            table.add_section()
        return as_text(table)


def as_number(value: float) -> str:
    """A number with all its digits, whole ones without a point."""
    return repr(value).removesuffix(".0")


def _number(value: str, column: str) -> float:
    text = value.strip()
    if text.lower() in MISSING:
        raise UserError(f"no number in column {column}")
    if not _is_number(text):
        hint = ": a decimal point is expected, no comma" if _is_number(text.replace(",", ".")) else ""
        raise UserError(f"'{text}' in column {column} is no number{hint}")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _are_numbers(row: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(row, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False
