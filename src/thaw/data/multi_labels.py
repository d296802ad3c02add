"""Labels of which each sample has any number, also none.

N: samples, C: classes.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thaw.data.class_labels import class_indices
from thaw.data.describe import described
from thaw.data.labels import Labels
from thaw.data.report import counts_table, missing_classes, similar_classes
from thaw.data.spellings import spelling_hint
from thaw.data.table import MISSING, Row
from thaw.errors import UserError
from thaw.types import Indices

BETWEEN = "|"
"""Stands between the labels of a sample in records, so that no name may hold it."""
NO_LABEL = "(no label)"
"""Stands for samples without any."""
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
"""What stands in a column of its own for a label, in lower case."""


class MultiLabels(Labels):
    """Any number of classes for each sample; `targets` are 0 and 1, (N, C)."""

    task = "multi_label"
    takes_lists = True

    @classmethod
    def read(cls, row: Row, columns: Sequence[str], separator: str) -> list[str]:
        """The labels of a sample: the columns that hold a 1, or what one column lists (`cat|dog`, or a JSON list)."""
        if len(columns) > 1:
            return [column for column in columns if _is_set(row[column], column)]
        return _listed(row[columns[0]], columns[0], separator)

    @classmethod
    def numbered(cls, labels: Sequence[Sequence[str]], columns: Sequence[str]) -> Self:
        """Classes in the order of the columns, or in alphabetical order where one column lists them."""
        names = list(columns) if len(columns) > 1 else sorted({name for some in labels for name in some})
        if not names:
            raise UserError(f"no sample has a label: column {columns[0]} is empty")
        number = {name: i for i, name in enumerate(names)}
        targets = np.zeros((len(labels), len(names)), dtype=np.int64)
        for row, some in zip(targets, labels, strict=True):
            row[[number[name] for name in some]] = 1
        return cls(names, targets)

    @classmethod
    def given(cls, names: Sequence[str], labels: Iterable[Any]) -> Self:
        """From rows of 0 and 1; an index into the names is the only label of its sample."""
        rows = list(labels)
        if not rows or np.ndim(rows[0]) == 0:
            return cls(names, np.eye(len(names), dtype=np.int64)[class_indices(rows, names)])
        for number, row in enumerate(rows):
            if np.shape(row) != (len(names),) or not np.isin(row, (0, 1)).all():
                raise UserError(
                    f"the label of sample {number} is {described(row)}: expected {len(names)} values 0 or 1, one for "
                    f"each of class_names"
                )
        return cls(names, np.array(rows).astype(np.int64))

    def __init__(self, names: Sequence[str], targets: NDArray[Any]):
        if wrong := [name for name in names if BETWEEN in name]:
            raise UserError(f"the label '{wrong[0]}' holds a {BETWEEN}, which stands between labels: name it otherwise")
        super().__init__(names, targets)

    @property
    def tensor(self) -> Any:
        """The targets as float32, which binary cross-entropy takes."""
        return super().tensor.float()

    @property
    def strata(self) -> NDArray[np.int64]:
        """The labels; of a single one, whether it is set."""
        return self.targets if len(self.names) > 1 else self.targets[:, 0]

    @property
    def stratum_names(self) -> list[str]:
        """The names of the labels."""
        return self.names if len(self.names) > 1 else [f"not {self.names[0]}", self.names[0]]

    def text(self, index: int) -> str:
        """The names of the labels: `cat|dog`."""
        return BETWEEN.join(self.names[number] for number in np.flatnonzero(self.targets[index]))

    @classmethod
    def counted(cls, text: str) -> list[str]:
        """Each of its labels."""
        return text.split(BETWEEN) if text else [NO_LABEL]

    def aligned(self, names: Sequence[str]) -> Self:
        """The labels in the order of `names`; those that these data do not have are 0."""
        if unknown := [name for name in self.names if name not in names]:
            raise UserError(
                f"the network was trained on the labels {', '.join(names)}; this data also has {', '.join(unknown)}: "
                f"leave it out, or start a new run with init_from=..." + spelling_hint([*names, *unknown])
            )
        targets = np.zeros((len(self), len(names)), dtype=np.int64)
        targets[:, [names.index(name) for name in self.names]] = self.targets
        return type(self)(names, targets)

    def counts(self, indices: Indices) -> list[int]:
        """Number of these samples that have each label."""
        return self.targets[indices].sum(axis=0).tolist()

    def require_learnable(self, train: Indices, why: str) -> None:
        """Raise UserError if no training sample has some label."""
        if absent := [name for name, count in zip(self.names, self.counts(train), strict=True) if not count]:
            raise UserError(f"no training sample has the label {', '.join(absent)}: {why}{spelling_hint(self.names)}")

    def task_facts(self, train: Indices, weighs: bool) -> dict[str, Any]:
        """Weight of each label where it is set, if labels are weighed: samples without it / samples with it."""
        if not weighs:
            return {}
        return {"class_weights": [max(len(train) - count, 1) / count for count in self.counts(train)]}

    def what(self) -> str:
        """The number of labels, and how many a sample has."""
        return f"{len(self.names)} labels ({self.targets.sum(axis=1).mean():.1f} of them each)"

    def table(self, parts: Mapping[str, Indices]) -> str:
        """Samples that have each label in each split, and those without any."""
        rows = {name: self.counts(part) for name, part in parts.items()}
        none = {name: int((~self.targets[part].any(axis=1)).sum()) for name, part in parts.items()}
        sizes = {name: len(part) for name, part in parts.items()}
        return counts_table(
            [*self.names, NO_LABEL],
            {name: [*counts, none[name]] for name, counts in rows.items()},
            (f"{len(self.names)} labels, samples", list(sizes.values())),
        )

    def warnings(self, parts: Mapping[str, Indices]) -> list[str]:
        """Labels that are probably one, that a split lacks, or that every training sample has."""
        rows = {name: self.counts(part) for name, part in parts.items()}
        everywhere = [
            name for name, count in zip(self.names, rows["train"], strict=True) if 0 < len(parts["train"]) == count
        ]
        always = [f"every training sample has the label {', '.join(everywhere)}: nothing is learnt of it"]
        return similar_classes(self.names) + missing_classes(rows, self.names) + (always if everywhere else [])


def _is_set(value: str, column: str) -> bool:
    word = value.strip().lower()
    if word not in (*YES, *NO):
        raise UserError(f"'{value.strip()}' in column {column}: expected 0 or 1, whether the sample has that label")
    return word in YES


def _listed(value: str, column: str, separator: str) -> list[str]:
    """The labels that one field lists, each once."""
    text = value.strip()
    if text.lower() in MISSING:
        return []
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except ValueError as error:
            raise UserError(f"column {column} holds {text[:40]}, which is no JSON list ({error})") from error
    else:
        listed = text.split(separator)
    if wrong := [label for label in listed if not isinstance(label, str)]:
        raise UserError(f"column {column} lists {wrong[0]!r}: expected names of labels, as texts")
    names = (unicodedata.normalize("NFC", label.strip()) for label in listed)
    return [*dict.fromkeys(name for name in names if name)]
