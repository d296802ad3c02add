"""Scores of each quantity, where labels are numbers.

N: samples.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from thaw.tasks.outputs import Floats


class NumberScores(NamedTuple):
    """Scores of one quantity, in its unit unless it says otherwise."""

    number: int
    """Its index among the names."""
    mae: float
    """Mean absolute error."""
    interval: tuple[float, float]
    """95% interval of the mean absolute error."""
    rmse: float
    """Root of the mean squared error."""
    r2: float
    """Share of the variance that is explained, at most 1; NaN where all numbers are the same."""
    spearman: float
    """Correlation of ranks, -1..1; NaN where all true or all predicted numbers are the same."""
    bias: float
    """Mean error: above 0 where predictions are too large."""
    mean: float
    """Of the true numbers."""
    std: float
    """Of the true numbers."""


def number_scores(number: int, true: Floats, predicted: Floats, interval: tuple[float, float]) -> NumberScores:
    """Return the scores of one quantity: true and predicted numbers, both (N,). NaN if a prediction is NaN."""
    errors = np.asarray(predicted - true, np.float64)
    squares = errors**2
    return NumberScores(
        number,
        mae=float(np.abs(errors).mean()),
        interval=interval,
        rmse=float(np.sqrt(squares.mean())),
        r2=float(1 - squares.mean() / np.var(true)) if np.ptp(true) else np.nan,
        spearman=_spearman(true, predicted),
        bias=float(errors.mean()),
        mean=float(np.mean(true)),
        std=float(np.std(true)),
    )


def _spearman(true: Floats, predicted: Floats) -> float:
    if not (np.isfinite(predicted).all() and np.ptp(true) and np.ptp(predicted)):
        return np.nan
    return float(np.corrcoef(rankdata(true), rankdata(predicted))[0, 1])
