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


Groups = NDArray[np.int64] | None
"""A number for each sample, (N,): samples with the same one are equal. None if no two samples are."""


@dataclass(frozen=True)
class Splits:
    """Sample indices of each split, sorted; `val` and `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def random_splits(
    targets: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int, groups: Groups = None
) -> Splits:
    """Split all samples, each class in the same proportions.

    Args:
        targets: Class index of every sample, (N,).
        val_fraction: Part of all samples that goes to val.
        test_fraction: Part of all samples that goes to test; 0 for no test split.
        seed: Seed of the draw.
        groups: Which samples are equal and must share a split.

    Raises:
        UserError: if a fraction is out of range or too small for the number of classes.
    """
    rest, test = _stratified(np.arange(len(targets)), targets, "test_fraction", test_fraction, seed)
    train, val = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    return Splits(*keep_together([train, val, test], targets, groups, seed))


def completed_splits(
    given: Sequence[str | None],
    targets: NDArray[np.int64],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Groups = None,
) -> Splits:
    """Keep the splits that the data come with, and cut a missing one from train, each class in the same proportions.

    Args:
        given: Split of every sample: train, val or test; None counts as train.
        targets: Class index of every sample, (N,).
        val_fraction: Part of the training samples that goes to val, if there is none.
        test_fraction: Part of the training samples that goes to test, if there is none; 0 for no test split.
        seed: Seed of the draw.
        groups: Which samples are equal; those that are cut from train share a split.

    Raises:
        UserError: if no sample is left to train on, or a fraction does not fit.
    """
    names = np.array([name or "train" for name in given])
    parts = {name: np.flatnonzero(names == name) for name in SPLITS}
    if not len(parts["train"]):
        raise UserError(f"the data has {' and '.join(sorted(set(names)))}, but nothing to train on: name a part train")
    cut = ["train"]
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if not len(parts[name]):
            parts["train"], parts[name] = _stratified(parts["train"], targets, f"{name}_fraction", fraction, seed)
            cut.append(name)
    parts.update(zip(cut, keep_together([parts[name] for name in cut], targets, groups, seed), strict=True))
    return Splits(**parts)


def require_enough(targets: NDArray[np.int64], class_names: Sequence[str], needed: int, groups: Groups = None) -> None:
    """Raise UserError if a class has fewer different samples than the `needed` ones, one for each part of the data."""
    distinct = np.arange(len(targets)) if groups is None else np.unique([groups, targets], axis=1, return_index=True)[1]
    counts = np.bincount(targets[distinct], minlength=len(class_names))
    if few := [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < needed]:
        raise UserError(
            f"each class needs at least {needed} different samples, one for each part of the data; too few: "
            f"{', '.join(few)}. Add some, or leave the class out." + spelling_hint(class_names)
        )


def fold_splits(
    targets: NDArray[np.int64], fold: int, folds: int, val_fraction: float, seed: int, groups: Groups = None
) -> Splits:
    """Split for stratified k-fold cross-validation.

    Args:
        targets: Class index of every sample, (N,).
        fold: Number of the fold that is the test split, from 0.
        folds: Number of folds.
        val_fraction: Part of all samples that goes to val.
        seed: Seed of the draw.
        groups: Which samples are equal and must share a split.

    Raises:
        UserError: if these numbers do not fit each other or the smallest class.
    """
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold} is out of range: with data.folds={folds} it goes from 0 to {folds - 1}")
    smallest = np.bincount(targets).min()
    if folds > smallest:
        raise UserError(f"data.folds={folds}, but the smallest class has only {smallest} samples: at most {smallest}")
    drawn = StratifiedKFold(folds, shuffle=True, random_state=seed).split(targets, targets)
    tests = keep_together([test for _, test in drawn], targets, groups, seed)
    rest = np.setdiff1d(np.arange(len(targets)), tests[fold])
    cut = _stratified(rest, targets, "val_fraction", val_fraction * len(targets) / len(rest), seed)
    train, val = keep_together(cut, targets, groups, seed)
    return Splits(train, val, tests[fold])


def keep_together(parts: Sequence[Indices], targets: NDArray[np.int64], groups: Groups, seed: int) -> Sequence[Indices]:
    """Move samples between parts of the data until equal ones share a part; without equal ones the parts stay as drawn.

    A group goes to the part of its first sample. Then groups of one class move, larger ones first, wherever that brings
    the number of samples of that class in each part nearer to what was drawn.

    Args:
        parts: Sample indices of each part.
        targets: Class index of every sample, (N,).
        groups: Which samples are equal.
        seed: Seed that decides which groups move.
    """
    if groups is None:
        return parts
    indices, part_of = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(indices)
    indices, part_of = indices[order], part_of[order]
    _, first, group_of, sizes = np.unique(groups[indices], return_index=True, return_inverse=True, return_counts=True)
    classes, place = targets[indices], part_of[first]
    excess = np.zeros((targets.max() + 1, len(parts)), dtype=np.int64)  # (C, parts): samples more than were drawn
    np.add.at(excess, (classes, place[group_of]), 1)
    np.subtract.at(excess, (classes, part_of), 1)
    mixed = np.zeros(len(first), dtype=bool)
    mixed[group_of[classes != classes[first][group_of]]] = True
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(~mixed))
    by_size = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    for group, size, label in zip(by_size, sizes[by_size].tolist(), classes[first[by_size]].tolist(), strict=True):
        row, here = excess[label], place[group]
        if row[here] > 0:
            there = row.argmin()
            if abs(row[here] - size) + abs(row[there] + size) < row[here] - row[there]:
                row[here] -= size
                row[there] += size
                place[group] = there
    return [indices[place[group_of] == part] for part in range(len(parts))]


def few_per_class(indices: Indices, targets: NDArray[np.int64], per_class: int, seed: int) -> Indices:
    """Draw `per_class` of the samples `indices` from each class; with one seed, a smaller draw is part of a larger one.

    Raises:
        UserError: if `per_class` is above the size of a class.
    """
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
