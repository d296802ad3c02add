"""Labels of which each sample has exactly one: its class."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thaw.data.describe import described
from thaw.data.labels import Labels
from thaw.data.report import counts_table, missing_classes, similar_classes
from thaw.data.spellings import spelling_hint
from thaw.data.table import Row, label_in
from thaw.errors import UserError
from thaw.types import Indices


class ClassLabels(Labels):
    """One class for each sample; `targets` are class indices, (N,)."""

    task = "single_label"
    one_class = True

    @classmethod
    def read(cls, row: Row, columns: Sequence[str], separator: str) -> str:
        """The name of the class."""
        return label_in(row, columns[0])

    @classmethod
    def numbered(cls, labels: Sequence[str], columns: Sequence[str] = ()) -> Self:
        """Number the classes in alphabetical order."""
        names, targets = np.unique(np.array(labels, dtype=object), return_inverse=True)
        return cls(names.tolist(), targets.astype(np.int64))

    @classmethod
    def given(cls, names: Sequence[str], labels: Iterable[Any]) -> Self:
        """From indices into the names."""
        return cls(names, class_indices(labels, names))

    @property
    def strata(self) -> NDArray[np.int64]:
        """The classes."""
        return self.targets

    def text(self, index: int) -> str:
        """The name of the class."""
        return self.names[self.targets[index]]

    @classmethod
    def counted(cls, text: str) -> list[str]:
        """Its class."""
        return [text]

    def aligned(self, names: Sequence[str]) -> Self:
        """The classes numbered as in `names`."""
        if unknown := [name for name in self.names if name not in names]:
            raise UserError(
                f"the network was trained on the classes {', '.join(names)}; this data also has "
                f"{', '.join(unknown)}: leave it out, or start a new run with init_from=..."
                + spelling_hint([*names, *unknown])
            )
        new_number = np.array([names.index(name) for name in self.names])
        return type(self)(names, new_number[self.targets])

    def counts(self, indices: Indices) -> list[int]:
        """Number of these samples in each class."""
        return np.bincount(self.targets[indices], minlength=len(self.names)).tolist()

    def require_learnable(self, train: Indices, why: str) -> None:
        """Raise UserError if there are no two classes, or a class has no training sample."""
        if len(self.names) < 2:
            raise UserError(f"there are at least two classes to tell apart, but this data has {self.names}")
        if absent := [name for name, count in zip(self.names, self.counts(train), strict=True) if not count]:
            raise UserError(f"no training sample of the class {', '.join(absent)}: {why}{spelling_hint(self.names)}")

    def task_facts(self, train: Indices, weighs: bool) -> dict[str, Any]:
        """Weight of each class in the loss, if classes are weighed: all samples / (C * its samples)."""
        counts = self.counts(train)
        return {"class_weights": [sum(counts) / (len(counts) * count) for count in counts]} if weighs else {}

    def what(self) -> str:
        """The number of classes."""
        return f"{len(self.names)} classes"

    def table(self, parts: Mapping[str, Indices]) -> str:
        """Samples of each class in each split."""
        return counts_table(self.names, {name: self.counts(part) for name, part in parts.items()})

    def warnings(self, parts: Mapping[str, Indices]) -> list[str]:
        """Classes that are probably one, and splits that lack a class."""
        return similar_classes(self.names) + missing_classes(
            {name: self.counts(part) for name, part in parts.items()}, self.names
        )


def class_indices(labels: Iterable[Any], names: Sequence[str]) -> NDArray[np.int64]:
    """Check indices into `names`, (N,). Raises UserError, which names the first sample that has something else."""
    indices = []
    for number, label in enumerate(labels):
        try:
            indices.append(operator.index(label))
        except TypeError:
            raise UserError(
                f"the label of sample {number} is {described(label)}: expected its number in class_names, an integer "
                f"from 0 to {len(names) - 1}, such as class_names.index('{names[0]}')"
            ) from None
        if not 0 <= indices[-1] < len(names):
            raise UserError(
                f"the label of sample {number} is {label}, but there are {len(names)} class_names: expected 0 to "
                f"{len(names) - 1}"
            )
    return np.array(indices, dtype=np.int64)
