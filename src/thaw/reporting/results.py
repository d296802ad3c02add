"""What the outputs of a split say, in numbers.

N: samples, C: classes.
"""

from dataclasses import dataclass

from thaw.reporting.classes import ClassScores, class_scores, confusion_counts, macro_average
from thaw.reporting.intervals import accuracy_interval, macro_f1_interval
from thaw.reporting.mistakes import Mistakes, mistakes_of
from thaw.tasks.outputs import ClassOutputs, Integers


@dataclass(frozen=True, eq=False)
class Results:
    """Results on one split."""

    total: int
    """Samples, N."""
    right: int
    """Samples classified right."""
    interval: tuple[float, float]
    """95% interval of the accuracy."""
    scores: list[ClassScores]
    """Of every class, the worst first."""
    macro: ClassScores
    """Plain mean over classes."""
    macro_f1_interval: tuple[float, float] | None
    """95% interval; None if there are too few mistakes for one."""
    confusion: Integers
    """Samples by true class and predicted class, (C, C)."""
    mistakes: Mistakes

    @property
    def accuracy(self) -> float:
        """Share of the samples that are classified right."""
        return self.right / self.total

    @property
    def most_frequent_share(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return int(self.confusion.sum(axis=1).max()) / self.total


def results_of(outputs: ClassOutputs) -> Results:
    """Evaluate the outputs of a split."""
    num_classes = outputs.logits.shape[1]
    confusion = confusion_counts(outputs.targets, outputs.predictions, num_classes)
    right, total = int(confusion.trace()), len(outputs.targets)
    scores = class_scores(outputs.targets, outputs.predictions, num_classes)
    return Results(
        total=total,
        right=right,
        interval=accuracy_interval(right, total),
        scores=scores,
        macro=macro_average(scores, confusion),
        macro_f1_interval=macro_f1_interval(confusion),
        confusion=confusion,
        mistakes=mistakes_of(outputs, confusion),
    )
