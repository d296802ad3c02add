"""Cut samples into train, val and test: pure functions of strata and a seed, giving sorted sample indices.

Strata are what every part has in the same proportions: the class of each sample, (N,), or several labels of each, 0 and
1, (N, C), which are cut by iterative stratification (Sechidis et al. 2011).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

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
"""A number for each sample, (N,): samples with the same one share a split. None if each may lie in any."""
MOST_SWEEPS = 20
"""Most times that all groups are looked at, whether another part suits them better."""


@dataclass(frozen=True)
class Splits:
    """Sample indices of each split, sorted; `val` and `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def random_splits(
    strata: NDArray[np.int64], val_fraction: float, test_fraction: float, seed: int, groups: Groups = None
) -> Splits:
    """Split all samples, each class in the same proportions.

    Args:
        strata: Strata of every sample.
        val_fraction: Part of all samples that goes to val.
        test_fraction: Part of all samples that goes to test; 0 for no test split.
        seed: Seed of the draw.
        groups: Which samples must share a split.

    Raises:
        UserError: if a fraction is out of range or too small for the number of classes.
    """
    rest, test = _stratified(np.arange(len(strata)), strata, "test_fraction", test_fraction, seed)
    train, val = _stratified(rest, strata, "val_fraction", val_fraction * len(strata) / len(rest), seed)
    return Splits(*keep_together([train, val, test], strata, groups, seed))


def completed_splits(
    given: Sequence[str | None],
    strata: NDArray[np.int64],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Groups = None,
) -> Splits:
    """Keep the splits that the data come with, and cut a missing one from train, each class in the same proportions.

    Args:
        given: Split of every sample: train, val or test; None counts as train.
        strata: Strata of every sample.
        val_fraction: Part of the training samples that goes to val, if there is none.
        test_fraction: Part of the training samples that goes to test, if there is none; 0 for no test split.
        seed: Seed of the draw.
        groups: Which samples share a split, of those that the data have in train.

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
            parts["train"], parts[name] = _stratified(parts["train"], strata, f"{name}_fraction", fraction, seed)
            cut.append(name)
    parts.update(zip(cut, keep_together([parts[name] for name in cut], strata, groups, seed), strict=True))
    return Splits(**parts)


def require_enough(strata: NDArray[np.int64], class_names: Sequence[str], needed: int, equal: Groups = None) -> None:
    """Raise UserError if a class has fewer different samples than the `needed` ones, one for each part of the data."""
    if equal is not None:
        strata = strata[np.unique(np.column_stack([equal, strata]), axis=0, return_index=True)[1]]
    counts = _sizes(strata, len(class_names))
    if few := [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < needed]:
        raise UserError(
            f"each class needs at least {needed} different samples, one for each part of the data; too few: "
            f"{', '.join(few)}. Add some, or leave the class out." + spelling_hint(class_names)
        )


def fold_splits(
    strata: NDArray[np.int64], fold: int, folds: int, val_fraction: float, seed: int, groups: Groups = None
) -> Splits:
    """Split for stratified k-fold cross-validation.

    Args:
        strata: Strata of every sample.
        fold: Number of the fold that is the test split, from 0.
        folds: Number of folds.
        val_fraction: Part of all samples that goes to val.
        seed: Seed of the draw.
        groups: Which samples must share a split.

    Raises:
        UserError: if these numbers do not fit each other or the smallest class.
    """
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold} is out of range: with data.folds={folds} it goes from 0 to {folds - 1}")
    smallest = _sizes(strata).min()
    if folds > smallest:
        raise UserError(f"data.folds={folds}, but the smallest class has only {smallest} samples: at most {smallest}")
    kinds = {1: StratifiedKFold, 2: MultilabelStratifiedKFold}
    drawn = kinds[strata.ndim](folds, shuffle=True, random_state=seed).split(strata, strata)
    tests = keep_together([test for _, test in drawn], strata, groups, seed)
    rest = np.setdiff1d(np.arange(len(strata)), tests[fold])
    cut = _stratified(rest, strata, "val_fraction", val_fraction * len(strata) / len(rest), seed)
    train, val = keep_together(cut, strata, groups, seed)
    return Splits(train, val, tests[fold])


def keep_together(parts: Sequence[Indices], strata: NDArray[np.int64], groups: Groups, seed: int) -> Sequence[Indices]:
    """Move samples between parts of the data until those of a group share a part; without groups they stay as drawn.

    A sample that is a group of its own stays where it was drawn. The other groups go where the samples of each class
    come nearest to the numbers that were drawn (squared difference, relative to the number), but no part is left
    without a group; larger ones first, and before them those that hold a class alone. Then single groups move for as
    long as that brings the numbers nearer.

    Args:
        parts: Sample indices of each part.
        strata: Strata of every sample; of several labels, the rarest counts.
        groups: Which samples share a part.
        seed: Seed of the order in which groups are placed.

    Raises:
        UserError: if there are fewer groups than parts.
    """
    if groups is None:
        return parts
    targets = one_stratum(strata)
    indices, drawn = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(indices)
    indices, drawn = indices[order], drawn[order]
    _, first, group_of, sizes = np.unique(groups[indices], return_index=True, return_inverse=True, return_counts=True)
    wanted = np.zeros((targets.max() + 1, len(parts)), dtype=np.int64)  # samples of each class in each part, (C, parts)
    np.add.at(wanted, (targets[indices], drawn), 1)
    fillable = wanted.any(axis=0)
    if len(first) < fillable.sum():
        raise UserError(
            f"{len(first)} group{'s' * (len(first) != 1)} of samples (data.group, or equal samples) cannot be shared "
            f"out among {fillable.sum()} parts of the data, since each needs one: name a data.group of which there are "
            f"more, or type data.group=null"
        )
    # Row r of `owner`, `label`, `count`: a group has so many samples of a class. Those of group g begin at starts[g].
    rows, count = np.unique(group_of * len(wanted) + targets[indices], return_counts=True)
    owner, label = np.divmod(rows, len(wanted))
    starts = np.searchsorted(owner, np.arange(len(first) + 1))
    place = np.where(sizes == 1, drawn[first], -1)
    placed = place[owner] >= 0
    excess = -wanted  # samples more than were drawn, (C, parts)
    np.add.at(excess, (label[placed], place[owner[placed]]), count[placed])
    held = np.bincount(place[place >= 0], minlength=len(parts))  # groups of each part
    scale = 1 / np.maximum(wanted, 1)

    def put(group: int, part: int, times: int = 1) -> None:
        own = slice(starts[group], starts[group + 1])
        excess[label[own], part] += times * count[own]
        held[part] += times

    def cost(group: int) -> NDArray[np.float64]:
        """By part, how much the difference from `wanted` grows if a group goes there."""
        own = slice(starts[group], starts[group + 1])
        number, classes = count[own, None], label[own]
        growth = (number * (number + 2 * excess[classes]) * scale[classes]).sum(axis=0)
        return np.where(fillable, growth, np.inf)

    draw = np.random.default_rng(seed)
    by_size = np.argsort(-sizes * draw.uniform(0.5, 1, len(sizes)), kind="stable")  # or a seed would change little
    alone = np.minimum.reduceat(np.bincount(label)[label], starts[:-1]) == 1  # the only group with some class
    several = by_size[sizes[by_size] > 1]
    several = several[np.argsort(~alone[several], kind="stable")]
    for left, group in zip(range(len(several), 0, -1), several, strict=True):
        growth, empty = cost(group), fillable & (held == 0)
        place[group] = np.where(empty, growth, np.inf).argmin() if left <= empty.sum() else growth.argmin()
        put(group, place[group])
    for _ in range(MOST_SWEEPS):
        too_many = np.maximum.reduceat(excess[label, place[owner]], starts[:-1]) > 0
        moved = False
        for group in by_size[too_many[by_size]]:
            here = place[group]
            if held[here] > 1 and excess[label[starts[group] : starts[group + 1]], here].max() > 0:
                put(group, here, -1)
                growth = cost(group)
                if growth.min() < growth[here] - 1e-9:
                    place[group], moved = growth.argmin(), True
                put(group, place[group])
        if not moved:
            break
    return [indices[place[group_of] == part] for part in range(len(parts))]


def one_stratum(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each sample, (N,): of several labels (N, C) the rarest, and C where there is none."""
    if strata.ndim == 1:
        return strata
    from_rarest = np.argsort(strata.sum(axis=0), kind="stable")
    has_any, first = strata.any(axis=1), strata[:, from_rarest].argmax(axis=1)
    return np.where(has_any, from_rarest[first], strata.shape[1]).astype(np.int64)


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
    indices: Indices, strata: NDArray[np.int64], name: str, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Return the rest and `fraction` of the samples; `name` is the setting that the fraction comes from."""
    if fraction == 0 and name == "test_fraction":
        return indices, indices[:0]
    if not 0 < fraction < 1:
        raise UserError(f"data.{name} leaves no samples for some split: use fractions above 0 with a sum below 1")
    try:
        cut = {1: StratifiedShuffleSplit, 2: MultilabelStratifiedShuffleSplit}[strata.ndim]
        rest, part = next(cut(1, test_size=fraction, random_state=seed).split(indices, strata[indices]))
    except ValueError as error:
        raise UserError(
            f"data.{name} cannot be cut from {len(indices)} samples with some of each class ({error}): "
            f"make it larger, or add samples"
        ) from error
    return np.sort(indices[rest]), np.sort(indices[part])


def _sizes(strata: NDArray[np.int64], most: int = 0) -> NDArray[np.int64]:
    """Samples of each of the (at least `most`) strata."""
    return np.bincount(strata, minlength=most) if strata.ndim == 1 else strata.sum(axis=0)
