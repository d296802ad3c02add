"""Results of samples with any number of labels.

N: samples, C: labels.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import logsigmoid

from thaw.data.multi_labels import BETWEEN, NO_LABEL
from thaw.markdown import inline
from thaw.reporting.drawings import picture
from thaw.reporting.intervals import FEW_MISTAKES, accuracy_interval, bootstrap_means, percentile_interval
from thaw.reporting.label_scores import LabelScores, label_scores
from thaw.reporting.pictures.precision_recall import precision_recall
from thaw.reporting.report import Picture
from thaw.reporting.results import Advice, Answer, Number, Results, weakest
from thaw.reporting.simple_models import SimpleModels, neighbours
from thaw.reporting.wording import enumerate_names, percent, percent_range, short_range
from thaw.tasks.outputs import Integers, MultiOutputs

SHOWN = 12
"""Most mistakes of each of the two kinds in a report."""
SURE, WEAK = 0.9, 0.1
"""Confidence from which a label may well be wrong; difference of F1 from which there is something to say."""


def macro_f1(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Mean of the F1 of all labels; 0 of one that is neither true nor predicted."""
    return float(f1_score(targets, predictions, average="macro", zero_division=0))


MODELS = SimpleModels(
    "macro F1",
    macro_f1,
    {"k-NN on pretrained features": lambda samples: KNeighborsClassifier(neighbours(samples))},
    {
        "TF-IDF + logistic regression of each label": lambda: OneVsRestClassifier(
            LogisticRegression(C=10, max_iter=200, class_weight="balanced")
        )
    },
)


class LabelMistake(NamedTuple):
    """A label that is set and should not be, or the reverse."""

    row: int
    """Of the outputs."""
    number: int
    """Of the label."""
    probability: float
    """Of the label."""


class LabelResults(Results[MultiOutputs]):
    """How well each label is told, and for how many samples all of them are right."""

    template = "label_results.html.jinja"
    models = MODELS
    most_shown = SHOWN
    measured = "most probable"
    speaks_for = "the most probable label"
    val_decided = "Val has chosen the best epoch and the thresholds"

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """Probabilities from which labels are set, (C,)."""
        return np.array(self.calibration.get("thresholds", [0.5] * len(self.names)), dtype=np.float64)

    @cached_property
    def predictions(self) -> Integers:
        """The labels that are set, 0 and 1, (N, C)."""
        return (self.outputs.probabilities >= self.thresholds).astype(np.int64)

    @cached_property
    def scores(self) -> list[LabelScores]:
        """Of every label, the worst first."""
        return label_scores(self.outputs.targets, self.outputs.probabilities, self.predictions, self.thresholds)

    def mean(self, column: str) -> float:
        """Mean of a column of `scores` over the labels that have it; NaN if none has."""
        values = [getattr(row, column) for row in self.scores]
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    @property
    def score(self) -> float:
        """Macro F1: the mean over labels, 0 for one that is neither true nor predicted."""
        return self.mean("f1")

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Percentile bootstrap of macro F1; None if there are few mistakes."""
        true, said = self.outputs.targets, self.predictions
        if (true != said).sum() < FEW_MISTAKES:
            return None
        columns = len(self.names)
        drawn = bootstrap_means(np.concatenate([true & said, true, said], axis=1))
        hits, both = drawn[:, :columns], drawn[:, columns : 2 * columns] + drawn[:, 2 * columns :]
        return percentile_interval((2 * hits / np.maximum(both, 1e-12)).mean(axis=1))

    @property
    def constant(self) -> tuple[str, float]:
        """All labels, always: no constant answer has a higher macro F1."""
        shares = self.outputs.targets.mean(axis=0)
        return "always every label", float((2 * shares / (1 + shares)).mean())

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether all labels of a sample are right, (N,)."""
        return (self.predictions == self.outputs.targets).all(axis=1)

    @cached_property
    def most_frequent(self) -> tuple[str, float]:
        """The most frequent set of labels, and the share of samples that have it."""
        sets = Counter(map(tuple, self.outputs.targets.tolist()))
        labels, count = sets.most_common(1)[0]
        return self.labels(np.array(labels)), count / self.total

    def labels(self, is_set: NDArray[np.integer]) -> str:
        """The names of labels, 0 and 1, (C,): `cat|dog`."""
        return BETWEEN.join(self.names[number] for number in np.flatnonzero(is_set)) or NO_LABEL

    def written(self, score: float) -> str:
        """With three digits."""
        return f"{score:.3f}"

    def verdict(self, what: str) -> str:
        """Macro F1 with its interval, mean average precision, the share of samples that are wholly right."""
        interval = f" (95% interval {short_range(self.interval)})" if self.interval else ""
        name, share = self.most_frequent
        return (
            f"Macro F1 is {self.score:.3f}{interval} on {self.total:,} {what}, where setting every label gives "
            f"{self.constant[1]:.3f}; the mean average precision is {self.mean('average_precision'):.3f}; "
            f"{percent(float(self.right.mean()))} have exactly the right labels, where always saying {name} gives "
            f"{percent(share)}"
        )

    def missing(self) -> list[str]:
        """Labels that no sample has."""
        return [self.names[row.number] for row in self.scores if not row.support]

    def numbers(self, things: str) -> list[Number]:
        """Macro F1, mean average precision, wholly right samples, wrong labels."""
        right, wrong = int(self.right.sum()), int((self.predictions != self.outputs.targets).sum())
        interval = accuracy_interval(right, self.total)
        return [
            Number("macro F1", f"{self.score:.4f}", short_range(self.interval)),
            Number("mean average precision", f"{self.mean('average_precision'):.4f}"),
            Number("all labels right", percent(right / self.total), percent_range(interval)),
            Number("wrong labels", f"{wrong:,}", note=f"of {self.predictions.size:,}, in {self.total:,} {things}"),
        ]

    def mistakes(self, is_set: bool) -> list[LabelMistake]:
        """Labels that are set and should not be (or that are not set and should be), the most confident first."""
        wrong = (self.predictions == is_set) & (self.outputs.targets != is_set)
        rows, numbers = np.nonzero(wrong)
        probabilities = self.outputs.probabilities[rows, numbers]
        order = np.argsort(-probabilities if is_set else probabilities, kind="stable")
        columns = (column[order].tolist() for column in (rows, numbers, probabilities))
        return [LabelMistake(*mistake) for mistake in zip(*columns, strict=True)]

    def advice(self) -> list[Advice]:
        """On labels that may be wrong or forgotten, and on weak ones."""
        found = []
        sure = sum(p >= SURE for *_, p in self.mistakes(True)) + sum(p <= 1 - SURE for *_, p in self.mistakes(False))
        if sure:
            text = f"Check the {sure:,} labels where the network says the contrary with {100 * SURE:.0f}% or more."
            found.append(Advice("mistakes", text))
        weakest = self.scores[0]
        if weakest.support and weakest.f1 < self.score - WEAK:
            name = self.names[weakest.number]
            text = f"{name} is the weakest label (F1 {weakest.f1:.2f}): collect more samples that have it."
            found.append(Advice("classes", text))
        return found

    def charts(self) -> list[Picture]:
        """Precision by recall of each label."""
        figure = precision_recall(**self.facts())
        return [picture("classes", "Precision and recall at every threshold", figure, "precision")]

    def facts(self) -> dict[str, Any]:
        """Targets 0 or 1 and probabilities, both (N, C), and C names."""
        outputs = self.outputs
        return {"targets": outputs.targets, "probabilities": outputs.probabilities, "class_names": self.names}

    def answer(self, row: int) -> Answer:
        """The labels, those that are set, and the highest probability."""
        number = self.explained(row)
        probability = float(self.outputs.probabilities[row, number])
        true, predicted = self.labels(self.outputs.targets[row]), self.labels(self.predictions[row])
        text = f"{self.names[number]} {percent(probability)}"
        return Answer(true, predicted, probability, text, bool(self.right[row]))

    def worst(self) -> NDArray[np.integer]:
        """Rows of samples with a wrong label, by how sure the network is of the wrongest."""
        distance = np.abs(self.outputs.probabilities - self.outputs.targets)
        surest = np.where(self.predictions != self.outputs.targets, distance, -1).max(axis=1)
        rows = np.flatnonzero(surest >= 0)
        return rows[np.argsort(-surest[rows], kind="stable")]

    def shown(self) -> set[int]:
        """Samples with the most confident mistakes of both kinds."""
        return {mistake.row for is_set in (True, False) for mistake in self.mistakes(is_set)[:SHOWN]}

    def explained(self, row: int) -> int:
        """The most probable label."""
        return int(self.outputs.logits[row].argmax())

    @staticmethod
    def strength(outputs: Tensor) -> Tensor:
        """Log-probabilities."""
        return logsigmoid(outputs)

    def purpose(self, things: str) -> Sequence[str]:
        """The labels."""
        names = enumerate_names([inline(name) for name in self.names], 30)
        return (
            f"It tells which of {len(self.names)} labels {things} have: {names}.",
            "each with any number of these labels, also none",
        )

    def limits(self, things: str) -> list[str]:
        """Thresholds, and the weakest labels."""
        thresholds = ", ".join(
            f"{inline(name)} {threshold:.3f}" for name, threshold in zip(self.names, self.thresholds, strict=True)
        )
        found = [
            f"A label is set where its probability reaches a threshold, which was chosen on val: {thresholds}.",
            f"Its probabilities are meant for such {things} only. They were not calibrated.",
        ]
        weak = weakest(self.scores, self.names)
        return [*found, f"Its weakest labels: {weak}."] if weak else found
