"""Results of samples with numbers.

N: samples, C: quantities.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from thaw.markdown import inline
from thaw.reporting.drawings import picture
from thaw.reporting.intervals import bootstrap_means, percentile_interval
from thaw.reporting.number_scores import NumberScores, number_scores
from thaw.reporting.pictures.scatter import residuals, scatter
from thaw.reporting.report import Picture
from thaw.reporting.results import EACH, Advice, Answer, Number, Results
from thaw.reporting.simple_models import SimpleModels, neighbours
from thaw.reporting.wording import amount, amount_range, enumerate_names
from thaw.tasks.outputs import NumberOutputs

SHOWN = 24
"""Most samples in a report, those with the largest errors."""
BIASED = 0.25
"""Mean error, as a share of the mean absolute error, from which there is something to say."""
FAR = 5
"""So many mean absolute errors are probably a wrong label."""
MODELS = SimpleModels(
    "mean absolute error",
    mean_absolute_error,
    {"k-NN on pretrained features": lambda samples: KNeighborsRegressor(neighbours(samples))},
    {"TF-IDF + ridge regression": lambda: TransformedTargetRegressor(Ridge(), transformer=StandardScaler())},
)


class NumberResults(Results[NumberOutputs]):
    """How far off the predicted numbers are."""

    template = "number_results.html.jinja"
    models = MODELS
    most_shown = SHOWN
    perfect = 0
    speaks_for = "a larger number"

    @property
    def measured(self) -> str:  # type: ignore[override]
        """The unit is the user's where there is one quantity."""
        return "off by" if len(self.names) == 1 else "off by, in std"

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Absolute errors, (N, C)."""
        return np.abs(self.outputs.errors).astype(np.float64)

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        return bootstrap_means(self.distances)

    @cached_property
    def scores(self) -> list[NumberScores]:
        """Of every quantity, in the order of the names."""
        pairs = zip(self.outputs.targets.T, self.outputs.values.T, self._draws.T, strict=True)
        return [
            number_scores(number, true, predicted, percentile_interval(draws))
            for number, (true, predicted, draws) in enumerate(pairs)
        ]

    @property
    def score(self) -> float:
        """Mean absolute error, of several quantities the mean."""
        return float(self.distances.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Percentile bootstrap of the score."""
        return percentile_interval(self._draws.mean(axis=1))

    @property
    def constant(self) -> tuple[str, float]:
        """The median of the split, which is closer than any other constant answer."""
        targets = self.outputs.targets
        return "always the median", float(np.abs(targets - np.median(targets, axis=0)).mean())

    @property
    def r2(self) -> float:
        """Explained share of the variance, of several quantities the mean; NaN if there is none."""
        values = [row.r2 for row in self.scores if np.isfinite(row.r2)]
        return float(np.mean(values)) if values else np.nan

    def written(self, score: float) -> str:
        """In the user's unit."""
        return amount(score)

    def verdict(self, what: str) -> str:
        """The error of each quantity with its interval, R², and the error of a constant answer."""
        errors = [
            f"{self.names[row.number]} by {amount(row.mae)} (95% interval {amount_range(row.interval)})"
            for row in self.scores
        ]
        of = f"Of {self.total:,} {what}, it is off on average: {enumerate_names(errors, 3)}"
        if len(errors) == 1:
            how_far = errors[0].removeprefix(self.names[0])
            of = f"The {self.names[0]} of {self.total:,} {what} is off{how_far} on average"
        r2 = f"; R² is {self.r2:.3f}" if np.isfinite(self.r2) else ""
        mean = f", a mean of {amount(self.score)}" if len(errors) > 1 else ""
        return f"{of}{mean}{r2}; {self.constant[0]} would be off by {amount(self.constant[1])}"

    def numbers(self, things: str) -> list[Number]:
        """Mean absolute error, the root of the mean squared one, R², rank correlation."""
        several = "mean of the quantities" if len(self.names) > 1 else ""
        spearman = [row.spearman for row in self.scores if np.isfinite(row.spearman)]
        return [
            Number("mean absolute error", amount(self.score), amount_range(self.interval), several),
            Number("root mean squared error", amount(float(np.sqrt((self.distances**2).mean()))), note=several),
            Number("R²", f"{self.r2:.4f}" if np.isfinite(self.r2) else "none", note=several),
            Number("rank correlation", f"{np.mean(spearman):.4f}" if spearman else "none", note=several),
        ]

    @cached_property
    def far(self) -> NDArray[np.float64]:
        """How far off each sample is: the largest of its errors, (N,); of several quantities in standard deviations."""
        return self.distances[:, 0] if len(self.names) == 1 else self._in_std.max(axis=1)

    @property
    def _in_std(self) -> NDArray[np.float64]:
        std = np.array([row.std for row in self.scores])
        return self.distances / np.where(std > 0, std, 1)

    def advice(self) -> list[Advice]:
        """On labels that may be wrong, and on a bias."""
        found = []
        if far := int((self.distances > FAR * self.distances.mean(axis=0)).any(axis=1).sum()):
            text = f"Check the labels of samples whose error is more than {FAR} times the mean one: {far:,}."
            found.append(Advice("mistakes", text))
        for row in self.scores:
            if abs(row.bias) > BIASED * row.mae and self.total >= SHOWN:
                side = "large" if row.bias > 0 else "small"
                text = f"Predictions of {self.names[row.number]} are too {side} by {amount(abs(row.bias))} on average."
                found.append(Advice("errors", text))
        return found

    def charts(self) -> list[Picture]:
        """True by predicted numbers, and errors by predicted numbers."""
        facts = self.facts()
        return [
            picture("errors", "Predicted by true numbers", scatter(**facts), "scatter"),
            picture("errors", "Errors by predicted numbers", residuals(**facts), "residuals"),
        ]

    def facts(self) -> dict[str, Any]:
        """True and predicted numbers, both (N, C), and the names of C quantities."""
        return {"targets": self.outputs.targets, "values": self.outputs.values, "class_names": self.names}

    def answer(self, row: int) -> Answer:
        """The numbers, the predicted ones, and the largest error."""
        far = float(self.far[row])
        text = amount(far) if len(self.names) == 1 else f"{self.names[int(self._in_std[row].argmax())]}, {amount(far)}"
        return Answer(self._text(self.outputs.targets[row]), self._text(self.outputs.values[row]), far, text, None)

    def _text(self, values: NDArray[np.floating]) -> str:
        if len(values) == 1:
            return amount(values[0])
        return ", ".join(f"{name} {amount(value)}" for name, value in zip(self.names, values, strict=True))

    def worst(self) -> NDArray[np.integer]:
        """Rows of all samples, the largest error first."""
        return np.argsort(-self.far, kind="stable")

    def shown(self) -> set[int]:
        """Those with the largest errors."""
        return set(self.worst()[:SHOWN].tolist())

    def looked_at(self) -> list[tuple[int, int]]:
        """The first quantity of the samples with the largest errors and with the smallest ones."""
        rows = self.worst()
        return [(int(row), self.explained(row)) for row in dict.fromkeys([*rows[:EACH], *rows[::-1][:EACH]])]

    def explained(self, row: int) -> int:
        """The first quantity."""
        return 0

    @staticmethod
    def strength(outputs: Tensor) -> Tensor:
        """The numbers as they are."""
        return outputs

    def purpose(self, things: str) -> Sequence[str]:
        """The quantities, and the numbers that it was measured on."""
        lowest, highest = self.outputs.targets.min(axis=0), self.outputs.targets.max(axis=0)
        ranges = [
            f"{inline(name)} ({amount_range((low, high))})"
            for name, low, high in zip(self.names, lowest.tolist(), highest.tolist(), strict=True)
        ]
        return (
            f"It predicts numbers of {things}: {enumerate_names(ranges, 30)}.",
            "each with numbers in the ranges that are given",
        )

    def limits(self, things: str) -> list[str]:
        """Ranges, and that it says not how sure it is."""
        return [
            "Numbers outside the range of the training samples are guesses.",
            f"It says not how sure it is: of each number it gives one value, whatever the {things} are.",
        ]
