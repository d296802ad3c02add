"""Chooses a head by validation: as trained, in closed form on the network's features, or the mean of both.

N: samples, V: views of each, D: features, C: classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thaw.finetuning.closed_form import Floats, LinearHead, discriminant_head
from thaw.tasks.calibration import fit_temperature, log_losses

AS_TRAINED = "as trained"

Targets = NDArray[np.integer]


class Candidate(NamedTuple):
    """A head and its results on validation samples."""

    name: str
    head: LinearHead
    """Its logits are divided by the temperature that fits the validation samples."""
    losses: Floats
    """Log loss of each sample, (N,)."""
    right: NDArray[np.bool_]
    """Whether each sample is classified right, (N,)."""


class HeadResult(NamedTuple):
    """What a run records of a candidate."""

    name: str
    log_loss: float
    """Mean over the validation samples, at the temperature that fits them."""
    accuracy: float
    """Share of the validation samples, 0..1."""
    chosen: bool


def candidates(
    trained: LinearHead, views: Floats, targets: Targets, val: Floats, val_targets: Targets
) -> list[Candidate]:
    """The heads to choose from: the trained one, the mean of both, the closed form.

    Args:
        trained: the trained head.
        views: features of the views of the training samples, (V, N, D).
        targets: their class indices, (N,), with every class among them.
        val: features of validation samples, (N, D).
        val_targets: their class indices, (N,).
    """
    trained_one = candidate(AS_TRAINED, trained, val, val_targets)
    closed_form = candidate("LDA", discriminant_head(views, targets, len(trained.bias)), val, val_targets)
    both = trained_one.head.mean(closed_form.head)
    return [trained_one, candidate("mean of the trained head and LDA", both, val, val_targets), closed_form]


def candidate(name: str, head: LinearHead, val: Floats, val_targets: Targets) -> Candidate:
    """A head at the temperature that fits validation samples, with its results on them."""
    # At a common scale first: logits of a closed form may be a hundred times too large for any temperature tried.
    head = head.at(float(head.logits(val).std()) or 1.0)
    logits = head.logits(val)
    temperature = fit_temperature(logits, val_targets)
    right = logits.argmax(axis=1) == val_targets
    return Candidate(name, head.at(temperature), log_losses(logits, val_targets, temperature), right)


def choose(found: Sequence[Candidate]) -> Candidate:
    """The first candidate, unless a later one is surely better than all before it that were.

    Surely: its mean log loss is lower by more than the standard error of the difference, sample by sample.
    """
    best, *others = found
    for other in others:
        gains = best.losses - other.losses
        if len(gains) > 1 and gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)):
            best = other
    return best


def results_of(found: Sequence[Candidate], chosen: Candidate) -> list[HeadResult]:
    """What a run records of the candidates."""
    return [HeadResult(one.name, float(one.losses.mean()), float(one.right.mean()), one is chosen) for one in found]


def describe(results: Sequence[HeadResult]) -> str:
    """The choice in one line: "head: LDA (validation log loss 0.41; as trained 0.52)"."""
    (chosen,) = (result for result in results if result.chosen)
    values = [f"{result.name} {result.log_loss:.4f}" for result in results if not result.chosen]
    return f"head: {chosen.name} ({'; '.join([f'validation log loss {chosen.log_loss:.4f}', *values])})"
