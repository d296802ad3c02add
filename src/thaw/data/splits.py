"""Who trains, who validates, who tests: pure functions of targets (N,) and a seed, giving sorted sample indices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from thaw.errors import UserError
from thaw.types import Indices

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What folders and files of a split are called, in lower case."""


@dataclass(frozen=True)
class Splits:
    train: Indices
    val: Indices
    test: Indices


def random_splits(targets: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int) -> Splits:
    """Stratified: each class is split in the same proportions. The fractions are of all samples; a `test_fraction` of
    0 makes no test split."""
    rest, test = _stratified(np.arange(len(targets)), targets, "test_fraction", test_fraction, seed, may_be_none=True)
    train, val = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    return Splits(train, val, test)


def completed_splits(
    given: Sequence[str | None], targets: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int
) -> Splits:
    """The splits that the data comes with; a missing one is cut from train, stratified. `given`: train, val or test."""
    names = np.array([name or "train" for name in given])
    parts = {name: np.flatnonzero(names == name) for name in SPLITS}
    if not len(parts["train"]):
        raise UserError(f"the data has {' and '.join(sorted(set(names)))}, but nothing to train on: name a part train")
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if not len(parts[name]):
            parts["train"], parts[name] = _stratified(
                parts["train"], targets, f"{name}_fraction", fraction, seed, may_be_none=name == "test"
            )
    return Splits(**parts)


def require_enough(targets: NDArray[np.int64], class_names: Sequence[str], needed: int) -> None:
    """ValueError where some class has fewer samples than it takes to have one in each part."""
    counts = np.bincount(targets, minlength=len(class_names))
    if few := [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < needed]:
        raise UserError(
            f"each class needs at least {needed} samples, one for each part of the data; too few: {', '.join(few)}. "
            f"Add some, or leave the class out."
        )


def fold_splits(targets: NDArray[np.int64], fold: int, folds: int, val_fraction: float, seed: int) -> Splits:
    """Stratified k-fold: fold number `fold` (from 0) tests; `val_fraction` of all samples validates."""
    if folds < 2:
        raise UserError(f"data.folds={folds}, but cross-validation takes at least 2: type data.folds=5")
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold} is out of range: with data.folds={folds} it goes from 0 to {folds - 1}")
    smallest = np.bincount(targets).min()
    if folds > smallest:
        raise UserError(f"data.folds={folds}, but the smallest class has only {smallest} samples: at most {smallest}")
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed).split(targets, targets)
    rest, test = list(cut)[fold]
    train, val = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    return Splits(train, val, np.sort(test))


def few_per_class(indices: Indices, targets: NDArray[np.int64], per_class: int, seed: int) -> Indices:
    """`per_class` samples of each class. For one seed, fewer are always a part of more."""
    if per_class < 1:
        raise UserError(f"data.labels_per_class={per_class}, but it takes at least 1 (or null for all)")
    counts = np.bincount(targets[indices], minlength=targets.max() + 1)
    if per_class > counts.min():
        raise UserError(
            f"data.labels_per_class={per_class} is too large: class number {counts.argmin()} has {counts.min()} "
            f"training samples. Type data.labels_per_class={counts.min()} or less."
        )
    shuffled = np.random.default_rng(seed).permutation(indices)
    chosen = [shuffled[targets[shuffled] == label][:per_class] for label in range(len(counts))]
    return np.sort(np.concatenate(chosen))


def _stratified(
    indices: Indices, targets: NDArray[np.int64], name: str, fraction: float, seed: int, may_be_none: bool = False
) -> tuple[Indices, Indices]:
    if fraction == 0 and may_be_none:
        return indices, indices[:0]
    if not 0 < fraction < 1:
        raise UserError(f"data.{name} leaves no samples for some split: use fractions above 0 with a sum below 1")
    try:
        kept, taken = train_test_split(indices, test_size=fraction, stratify=targets[indices], random_state=seed)
    except ValueError as error:
        raise UserError(
            f"data.{name} cannot be cut from {len(indices)} samples with some of each class ({error}): "
            f"make it larger, or add samples"
        ) from error
    return np.sort(kept), np.sort(taken)
