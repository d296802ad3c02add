"""Cut samples into train, val and test: pure functions of class indices and a seed, giving sorted sample indices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from thaw.data.spellings import spelling_hint
from thaw.errors import UserError
from thaw.types import Indices

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split that is meant by the name of a folder or file, or by a word in a table, in lower case."""


@dataclass(frozen=True)
class Splits:
    """Sample indices of each split, sorted; `val` and `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def random_splits(targets: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int) -> Splits:
    """Split all samples, each class in the same proportions.

    Args:
        targets: Class index of every sample, (N,).
        val_fraction: Part of all samples that goes to val.
        test_fraction: Part of all samples that goes to test; 0 for no test split.
        seed: Seed of the draw.

    Raises:
        UserError: if a fraction is out of range or too small for the number of classes.
    """
    rest, test = _stratified(np.arange(len(targets)), targets, "test_fraction", test_fraction, seed)
    train, val = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    return Splits(train, val, test)


def completed_splits(
    given: Sequence[str | None], targets: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int
) -> Splits:
    """Keep the splits that the data come with, and cut a missing one from train, each class in the same proportions.

    Args:
        given: Split of every sample: train, val or test; None counts as train.
        targets: Class index of every sample, (N,).
        val_fraction: Part of the training samples that goes to val, if there is none.
        test_fraction: Part of the training samples that goes to test, if there is none; 0 for no test split.
        seed: Seed of the draw.

    Raises:
        UserError: if no sample is left to train on, or a fraction does not fit.
    """
    names = np.array([name or "train" for name in given])
    parts = {name: np.flatnonzero(names == name) for name in SPLITS}
    if not len(parts["train"]):
        raise UserError(f"the data has {' and '.join(sorted(set(names)))}, but nothing to train on: name a part train")
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if not len(parts[name]):
            parts["train"], parts[name] = _stratified(parts["train"], targets, f"{name}_fraction", fraction, seed)
    return Splits(**parts)


def require_enough(targets: NDArray[np.int64], class_names: Sequence[str], needed: int) -> None:
    """Raise UserError if a class has fewer samples than the `needed` ones, one for each part of the data."""
    counts = np.bincount(targets, minlength=len(class_names))
    if few := [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < needed]:
        raise UserError(
            f"each class needs at least {needed} samples, one for each part of the data; too few: {', '.join(few)}. "
            f"Add some, or leave the class out." + spelling_hint(class_names)
        )


def fold_splits(targets: NDArray[np.int64], fold: int, folds: int, val_fraction: float, seed: int) -> Splits:
    """Split for stratified k-fold cross-validation.

    Args:
        targets: Class index of every sample, (N,).
        fold: Number of the fold that is the test split, from 0.
        folds: Number of folds.
        val_fraction: Part of all samples that goes to val.
        seed: Seed of the draw.

    Raises:
        UserError: if these numbers do not fit each other or the smallest class.
    """
    if folds < 2:
        raise UserError(f"data.folds={folds}, but cross-validation takes at least 2: type data.folds=5")
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold} is out of range: with data.folds={folds} it goes from 0 to {folds - 1}")
    smallest = np.bincount(targets).min()
    if folds > smallest:
        raise UserError(f"data.folds={folds}, but the smallest class has only {smallest} samples: at most {smallest}")
    rest, test = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(targets, targets))[fold]
    train, val = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    return Splits(train, val, np.sort(test))


def few_per_class(indices: Indices, targets: NDArray[np.int64], per_class: int, seed: int) -> Indices:
    """Draw `per_class` of the samples `indices` from each class; with one seed, a smaller draw is part of a larger one.

    Raises:
        UserError: if `per_class` is below 1 or above the size of a class.
    """
    if per_class < 1:
        raise UserError(f"data.labels_per_class={per_class}, but it takes at least 1 (or null for all)")
    counts = np.bincount(targets[indices], minlength=targets.max() + 1)
    if per_class > counts.min():
        raise UserError(
            f"data.labels_per_class={per_class} is too large: class number {counts.argmin()} has {counts.min()} "
            f"training samples. Type data.labels_per_class={counts.min()} or less."
        )
    shuffled = np.random.default_rng(seed).permutation(indices)
    return np.sort(np.concatenate([shuffled[targets[shuffled] == label][:per_class] for label in range(len(counts))]))


def _stratified(
    indices: Indices, targets: NDArray[np.int64], name: str, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Return the rest and `fraction` of the samples; `name` is the setting that the fraction comes from."""
    if fraction == 0 and name == "test_fraction":
        return indices, indices[:0]
    if not 0 < fraction < 1:
        raise UserError(f"data.{name} leaves no samples for some split: use fractions above 0 with a sum below 1")
    try:
        rest, part = train_test_split(indices, test_size=fraction, stratify=targets[indices], random_state=seed)
    except ValueError as error:
        raise UserError(
            f"data.{name} cannot be cut from {len(indices)} samples with some of each class ({error}): "
            f"make it larger, or add samples"
        ) from error
    return np.sort(rest), np.sort(part)
