"""The labels of samples, as data sources give them and networks learn them: the base class of their kinds.

N: samples, C: classes or quantities.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thaw.data.table import Row
from thaw.errors import UserError
from thaw.types import Indices


class Labels(ABC):
    """The labels of all samples. A task says of which kind they are: `ClassLabels`, `MultiLabels`, `NumberLabels`."""

    task: ClassVar[str]
    """The task that has labels of this kind, as it is typed."""
    one_class: ClassVar[bool] = False
    """Whether each sample has exactly one class."""
    takes_lists: ClassVar[bool] = False
    """Whether a label may be a list in a table of JSON or parquet."""
    names: list[str]
    """Of the classes, or of the quantities that were measured, in the order of the network's outputs, (C,)."""
    targets: NDArray[Any]
    """What the network learns: class indices (N,), or a row for each sample, (N, C)."""

    def __init__(self, names: Sequence[str], targets: NDArray[Any]):
        self.names, self.targets = list(names), targets

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    @abstractmethod
    def read(cls, row: Row, columns: Sequence[str], separator: str) -> Any:
        """The label in a row of a table, for `numbered`. Raises UserError if there is none, or it is of another kind.

        Args:
            row: the row.
            columns: the columns of labels.
            separator: stands between several labels in one column.
        """

    @classmethod
    @abstractmethod
    def numbered(cls, labels: Sequence[Any], columns: Sequence[str]) -> Self:
        """The labels of all samples, from what `read` gave for each of them."""

    @classmethod
    @abstractmethod
    def given(cls, names: Sequence[str], labels: Iterable[Any]) -> Self:
        """The labels of a data source, in the order of its samples. Raises UserError if they are not of this kind.

        Args:
            names: its `class_names`.
            labels: of each sample an index into the names, or one value for each name.
        """

    @property
    def tensor(self) -> Tensor:
        """The targets as batches have them."""
        return torch.from_numpy(self.targets)

    @property
    @abstractmethod
    def strata(self) -> NDArray[np.int64]:
        """What all splits have in the same proportions: a number for each sample, (N,), or 0 and 1, (N, C)."""

    @property
    def stratum_names(self) -> list[str]:
        """Names of the strata, for messages."""
        return self.names

    @abstractmethod
    def text(self, index: int) -> str:
        """The label of a sample, for people and for records: equal for equal labels only."""

    @classmethod
    @abstractmethod
    def counted(cls, text: str) -> list[str]:
        """The names under which a sample with the label `text` is counted."""

    @abstractmethod
    def aligned(self, names: Sequence[str]) -> Self:
        """The same labels in the order of a trained network's `names`. Raises UserError if it does not know them."""

    @abstractmethod
    def require_learnable(self, train: Indices, why: str) -> None:
        """Raise UserError if something cannot be learnt from these samples; `why`: the likely reason."""

    @abstractmethod
    def task_facts(self, train: Indices, weighs: bool) -> dict[str, Any]:
        """What the task is told of the training samples: keyword arguments of its class.

        Args:
            train: the samples.
            weighs: whether rare classes weigh more (data.balance=loss).
        """

    @abstractmethod
    def what(self) -> str:
        """What there is to learn, in a phrase: "10 classes"."""

    @abstractmethod
    def table(self, parts: Mapping[str, Indices]) -> str:
        """A text table of the labels of each split."""

    def warnings(self, parts: Mapping[str, Indices]) -> list[str]:
        """Warnings about the labels of the splits."""
        return []


def label_columns(columns: str | Sequence[str], key: str, kind: type[Labels]) -> list[str]:
    """The columns that the setting `key` names. Raises UserError if they are several, and labels are classes."""
    names = [columns] if isinstance(columns, str) else list(map(str, columns))
    if not names or len(set(names)) < len(names):
        raise UserError(f"{key}=[{','.join(names)}]: expected a column of labels, or several different ones")
    if len(names) > 1 and kind.one_class:
        raise UserError(
            f"{key}=[{','.join(names)}] names {len(names)} columns, and each sample has one class: type "
            f"task=multi_label (columns of 0 and 1) or task=regression (columns of numbers)"
        )
    return names
