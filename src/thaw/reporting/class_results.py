"""Results of samples with one class each."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from thaw.markdown import inline
from thaw.reporting.calibration import Calibration, calibration
from thaw.reporting.classes import ClassScores, class_scores, confusion_counts, macro_average
from thaw.reporting.drawings import picture
from thaw.reporting.intervals import accuracy_interval, macro_f1_interval
from thaw.reporting.mistakes import Mistakes, confident_mistakes, mistakes_of
from thaw.reporting.pictures.precision_recall import precision_recall
from thaw.reporting.pictures.reliability import reliability
from thaw.reporting.report import Picture
from thaw.reporting.results import Advice, Answer, Number, Results, weakest
from thaw.reporting.simple_models import ClassMeans, SimpleModels, neighbours
from thaw.reporting.wording import enumerate_names, percent, percent_range, short_range
from thaw.tasks.outputs import ClassOutputs, Integers

SURE = 0.9
"""Confidence from which a mistake may well be a wrong label."""
WEAK, WIDE, ECE_GAIN = 0.1, 0.06, 0.01
"""Differences of shares from which there is something to say."""
MODELS = SimpleModels(
    "accuracy",
    accuracy_score,
    {
        "k-NN on pretrained features": lambda samples: KNeighborsClassifier(neighbours(samples)),
        "class means of pretrained features": lambda samples: ClassMeans(),
    },
    {"TF-IDF + logistic regression": lambda: LogisticRegression(C=10, max_iter=200)},
)


class ClassResults(Results[ClassOutputs]):
    """How often the predicted class is the true one, which classes are confused, and how sure the network is."""

    template = "class_results.html.jinja"
    models = MODELS

    @cached_property
    def confusion(self) -> Integers:
        """Samples by true class and predicted class, (C, C)."""
        return confusion_counts(self.outputs.targets, self.outputs.predictions, self.outputs.logits.shape[1])

    @property
    def right(self) -> int:
        """Samples classified right."""
        return int(self.confusion.trace())

    @property
    def accuracy(self) -> float:
        """Share of the samples that are classified right."""
        return self.right / self.total

    score = accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the accuracy."""
        return accuracy_interval(self.right, self.total)

    @property
    def constant(self) -> tuple[str, float]:
        """The most frequent class, always."""
        return "always the most frequent class", int(self.confusion.sum(axis=1).max()) / self.total

    @cached_property
    def scores(self) -> list[ClassScores]:
        """Of every class, the worst first."""
        return class_scores(self.outputs.targets, self.outputs.predictions, len(self.confusion))

    @cached_property
    def macro(self) -> ClassScores:
        """Plain mean over classes."""
        return macro_average(self.scores, self.confusion)

    @cached_property
    def macro_f1_interval(self) -> tuple[float, float] | None:
        """95% interval; None if there are too few mistakes for one."""
        return macro_f1_interval(self.confusion)

    @cached_property
    def mistakes(self) -> Mistakes:
        """Those that are shown."""
        return mistakes_of(self.outputs, self.confusion)

    @property
    def temperature(self) -> float | None:
        """Calibrated probabilities are softmax(logits / temperature); fitted on val."""
        return self.calibration.get("temperature")

    def calibrations(self, outputs: Mapping[str, ClassOutputs]) -> dict[str, tuple[Calibration, Calibration | None]]:
        """How far probabilities can be trusted, plain and at the temperature, by split."""
        scaled = self.temperature
        return {
            split: (calibration(some), None if scaled is None else calibration(some, scaled))
            for split, some in outputs.items()
        }

    def written(self, score: float) -> str:
        """In percent."""
        return percent(score)

    def verdict(self, what: str) -> str:
        """The accuracy with its interval."""
        interval = f"95% interval {percent_range(self.interval)}"
        return f"{percent(self.accuracy)} of {self.total:,} {what} are classified right ({interval})"

    def remark(self) -> str:
        """The most confused classes."""
        if not self.mistakes.pairs:
            return ""
        worst = self.mistakes.pairs[0]
        return f"most often {self.names[worst.true]} is taken for {self.names[worst.predicted]} ({worst.times:,} times)"

    def missing(self) -> list[str]:
        """Classes without samples."""
        return [self.names[row.number] for row in self.scores if not row.support]

    def numbers(self, things: str) -> list[Number]:
        """Accuracy, macro F1, the number of mistakes, calibration."""
        ((plain, scaled),) = self.calibrations({"": self.outputs}).values()
        return [
            Number("accuracy", percent(self.accuracy), percent_range(self.interval)),
            Number("macro F1", f"{self.macro.f1:.4f}", short_range(self.macro_f1_interval)),
            Number("mistakes", f"{self.total - self.right:,}", note=f"of {self.total:,} {things}"),
            Number("calibration error", f"{plain.ece:.4f}", note=f"{scaled.ece:.4f} with T" if scaled else ""),
        ]

    def advice(self) -> list[Advice]:
        """On labels that may be wrong, weak classes, calibration, and too small a split."""
        found = []
        wrong = self.outputs.predictions != self.outputs.targets
        if sure := int(np.count_nonzero(self.outputs.confidences[wrong] >= SURE)):
            text = f"Check the labels of the mistakes with a confidence of {100 * SURE:.0f}% or more: {sure:,}."
            found.append(Advice("mistakes", text))
        weakest = self.scores[0]
        if weakest.support and weakest.f1 < self.macro.f1 - WEAK:
            name = self.names[weakest.number]
            text = f"{name} is the weakest class (F1 {weakest.f1:.2f}): collect more samples of it."
            found.append(Advice("classes", text))
        ((plain, scaled),) = self.calibrations({"": self.outputs}).values()
        if scaled and plain.ece - scaled.ece > ECE_GAIN:
            text = f"Divide the logits by {self.temperature:.2f} where probabilities matter: it calibrates them."
            found.append(Advice("trust", text))
        width = self.interval[1] - self.interval[0]
        if width > WIDE:
            text = f"The interval is {100 * width:.0f} points wide: smaller differences between runs mean little."
            found.append(Advice("classes", text))
        return found

    def charts(self) -> list[Picture]:
        """Reliability, also with calibrated probabilities if there is a temperature, and precision by recall."""
        facts = self.facts()
        calibrated = None if self.temperature is None else self.outputs.calibrated(self.temperature).probabilities
        trust = reliability(facts["targets"], facts["probabilities"], calibrated)
        return [
            picture("trust", "Accuracy by confidence", trust, "reliability"),
            picture("classes", "Precision and recall at every threshold", precision_recall(**facts), "precision"),
        ]

    def facts(self) -> dict[str, Any]:
        """Class indices (N,), probabilities (N, C) and C names."""
        outputs = self.outputs
        return {"targets": outputs.targets, "probabilities": outputs.probabilities, "class_names": self.names}

    def answer(self, row: int) -> Answer:
        """The class, the predicted one, and its probability."""
        true, predicted = int(self.outputs.targets[row]), int(self.outputs.predictions[row])
        confidence = float(self.outputs.confidences[row])
        return Answer(self.names[true], self.names[predicted], confidence, percent(confidence), true == predicted)

    def worst(self) -> Integers:
        """Rows of all mistakes, the most confident first."""
        return confident_mistakes(self.outputs)

    def shown(self) -> set[int]:
        """The most confident mistakes and examples of pairs: at most 114."""
        return {*self.mistakes.confident, *(row for some in self.mistakes.examples.values() for row in some)}

    def explained(self, row: int) -> int:
        """The predicted class."""
        return int(self.outputs.predictions[row])

    @staticmethod
    def strength(outputs: Tensor) -> Tensor:
        """Log-probabilities."""
        return outputs.log_softmax(dim=1)

    def purpose(self, things: str) -> Sequence[str]:
        """The classes."""
        names = enumerate_names([inline(name) for name in self.names], 30)
        return (
            f"It classifies {things} into {len(self.names)} classes: {names}.",
            "each of exactly one of these classes",
        )

    def limits(self, things: str) -> list[str]:
        """No answer for other classes, what probabilities mean, the weakest classes."""
        calibrate = "They were not calibrated."
        if self.temperature is not None:
            calibrate = f"Divide its logits by {self.temperature:.3f} to calibrate them."
        found = [
            'It has no answer "none of these": a sample of another class is assigned one of these all the same.',
            f"Its probabilities are meant for such {things} only. {calibrate}",
        ]
        weak = weakest(self.scores, self.names)
        return [*found, f"Its weakest classes: {weak}."] if weak else found
