"""What the outputs of a split say: what reports, cards and pictures ask of every kind of outputs.

N: samples, C: classes or quantities, B: batch size.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thaw.markdown import inline
from thaw.reporting.report import Picture
from thaw.reporting.simple_models import SimpleModels
from thaw.tasks.outputs import Outputs

EACH = 4
"""Samples of each kind, wrong and right, for which a report shows where the network looked."""

Kind = TypeVar("Kind", bound=Outputs, covariant=True)


class Answer(NamedTuple):
    """The label of one sample and what the network says, for people."""

    true: str
    predicted: str
    measured: float
    """How sure the network is, or how far off; `Results.measured` says which."""
    text: str
    """`measured` as a text."""
    is_right: bool | None
    """None where nothing is right or wrong."""


class Number(NamedTuple):
    """One of the most important numbers."""

    name: str
    value: str
    interval: str = ""
    """95% interval."""
    note: str = ""


class Advice(NamedTuple):
    """One piece of advice."""

    section: str
    """The section that shows why; none is called "top"."""
    text: str


class Results(ABC, Generic[Kind]):
    """Results on one split. Each kind of outputs has a derived class; what costs time is computed when it is asked for.

    Args:
        outputs: of the split, of at least one sample.
        names: of the classes or quantities, C of them.
        calibration: what validation has decided, see `Task.calibration`.
    """

    template: ClassVar[str]
    """File with the sections of this kind: anchor, title and content of each."""
    models: ClassVar[SimpleModels]
    """What the network is compared with."""
    perfect: ClassVar[float] = 1
    """The best `score` there is: 1, or 0 of errors."""
    measured: str = "confidence"
    """What `Answer.measured` is."""
    speaks_for: str = "the predicted class"
    """What is explained by where the network looked."""
    val_decided: ClassVar[str] = "Val has chosen the best epoch"
    """Why scores on val flatter."""

    def __init__(self, outputs: Kind, names: Sequence[str], calibration: Mapping[str, Any]):
        self.outputs, self.names, self.calibration = outputs, list(names), calibration

    @property
    def total(self) -> int:
        """Samples, N."""
        return len(self.outputs.targets)

    @property
    def measure(self) -> str:
        """Name of `score`."""
        return self.models.measure_name

    @property
    @abstractmethod
    def score(self) -> float:
        """The one number by which this is compared with simple methods."""

    @property
    @abstractmethod
    def interval(self) -> tuple[float, float] | None:
        """95% interval of `score`; None if there is none."""

    @property
    @abstractmethod
    def constant(self) -> tuple[str, float]:
        """The best answer that is the same for every sample, in words, and its score."""

    @abstractmethod
    def written(self, score: float) -> str:
        """A score as a text."""

    def is_as_good(self, score: float, other: float) -> bool:
        """Whether a score is as good as another one, or better."""
        return score >= other if self.perfect else score <= other

    @abstractmethod
    def verdict(self, what: str) -> str:
        """The result in words, as the start of a sentence; `what`: "test images"."""

    def remark(self) -> str:
        """The end of the sentence; empty if there is nothing to add."""
        return ""

    def missing(self) -> list[str]:
        """Names of the classes that no sample of the split has."""
        return []

    @abstractmethod
    def numbers(self, things: str) -> list[Number]:
        """The most important numbers, the first one is `score`; `things`: "images"."""

    def advice(self) -> list[Advice]:
        """What to do next, the most urgent first."""
        return []

    @abstractmethod
    def charts(self) -> list[Picture]:
        """Charts for the sections of `template`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What functions of `task.pictures` may take, by name."""

    @abstractmethod
    def answer(self, row: int) -> Answer:
        """The label of a row of the outputs, and what the network says."""

    @abstractmethod
    def worst(self) -> NDArray[np.integer]:
        """Rows of the samples where the network is wrong, the most confident first; of numbers the most distant."""

    @abstractmethod
    def shown(self) -> set[int]:
        """Rows of the samples that a report shows, without those of its `looks`."""

    def wanted(self) -> list[int]:
        """Indices of the samples that a report shows."""
        return sorted(int(self.outputs.indices[row]) for row in self.shown())

    def looked_at(self) -> list[tuple[int, int]]:
        """Rows for which it is shown where the network looked, each with the output that is explained."""
        wrong = self.worst()[:EACH]
        right = np.setdiff1d(np.arange(self.total), self.worst())
        right = right[np.linspace(0, len(right) - 1, min(EACH, len(right))).astype(int)]
        return [(int(row), self.explained(int(row))) for row in [*wrong, *right]]

    @abstractmethod
    def explained(self, row: int) -> int:
        """The output that is explained where the network looked at a row."""

    @staticmethod
    @abstractmethod
    def strength(outputs: Tensor) -> Tensor:
        """How strongly each class is predicted, (B, C), from outputs of the network (B, C)."""

    @abstractmethod
    def purpose(self, things: str) -> Sequence[str]:
        """For a model card, in Markdown: what it is for, and what each sample is expected to be."""

    @abstractmethod
    def limits(self, things: str) -> list[str]:
        """For a model card, in Markdown: what it cannot do."""


def weakest(scores: Sequence[Any], names: Sequence[str]) -> str:
    """At most three classes with the lowest F1, in Markdown: "cat (F1 0.71)"; empty if no F1 is below 1.

    Args:
        scores: of each class, the worst first: its `number`, `f1` and `support`.
        names: of the classes.
    """
    weak = [row for row in scores if row.support and row.f1 < 1][:3]
    return ", ".join(f"{inline(names[row.number])} (F1 {row.f1:.2f})" for row in weak)
