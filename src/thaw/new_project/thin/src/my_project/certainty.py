"""A picture: a function that takes what it wants of targets, probabilities and class_names, and returns a figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from numpy.typing import NDArray


def certainty(targets: NDArray, probabilities: NDArray, class_names: Sequence[str]) -> Figure:
    """Probability that samples of each class, (N,), got for their class, of (N, C), as boxes."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot(ylabel="probability of the true class", ylim=(0, 1))
    axes.boxplot([probabilities[targets == number, number] for number in range(len(class_names))])
    axes.set_xticks(range(1, len(class_names) + 1), class_names)
    return figure
