"""Assign samples to splits: by a seed, as the data say, as a run recorded it, or to measure a run on new data."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from thaw.data.labels import Labels
from thaw.data.samples import Sample, SampleRecord
from thaw.data.splits import SPLITS, Groups, Splits, completed_splits, fold_splits, random_splits, require_enough
from thaw.errors import UserError

GivenSplits = Sequence[str | None] | None
"""train, val or test for each sample, None for a sample that is not assigned; None if no sample is."""


def make_splits(
    labels: Labels,
    given: GivenSplits,
    *,
    val_fraction: float,
    test_fraction: float,
    fold: int | None,
    folds: int,
    seed: int,
    equal: Groups = None,
    groups: Groups = None,
) -> Splits:
    """Split samples as the data say, completed by a seed; or into the folds of a cross-validation.

    Samples of one of `groups` share a split unless the data say otherwise; without groups, those that are `equal` do.

    Raises:
        UserError: the fractions or folds do not fit the samples, or something cannot be learnt.
    """
    strata = labels.strata
    if given is None:
        require_enough(strata, labels.stratum_names, folds if fold is not None else 3, equal)
    groups = equal if groups is None else groups
    if fold is not None:
        if given is not None:
            raise UserError("data.fold splits the data again, but it comes with splits of its own: type data.fold=null")
        splits = fold_splits(strata, fold, folds, val_fraction, seed, groups)
    elif given is not None:
        splits = completed_splits(given, strata, val_fraction, test_fraction, seed, groups)
    else:
        splits = random_splits(strata, val_fraction, test_fraction, seed, groups)
    is_grouped = groups is not equal
    why = "its groups (data.group) all lie in other splits" if is_grouped else "it could never be learnt"
    labels.require_learnable(splits.train, why)
    return splits


def splits_as_recorded(samples: Sequence[Sample], labels: Sequence[str], records: Sequence[SampleRecord]) -> Splits:
    """The splits of a run, whatever was added to the data since.

    Args:
        samples: identity of each sample of the data; a table may hold a sample more than once.
        labels: class name of each sample.
        records: the samples of the run.

    Raises:
        UserError: samples of the run are gone.
    """
    indices = defaultdict(list)
    for index in reversed(range(len(samples))):
        indices[samples[index]].append(index)
    parts: dict[str, list[int]] = defaultdict(list)
    gone = []
    for sample, label, split in records:
        if candidates := indices[sample]:
            index = next((i for i in reversed(candidates) if labels[i] == label), candidates[-1])
            candidates.remove(index)
            parts[split].append(index)
        else:
            gone.append(sample.name)
    if gone:
        raise UserError(
            f"{len(gone)} samples of the run are gone or changed ({', '.join(gone[:5])} ...): put them back"
        )
    return Splits(*(np.array(parts[name], dtype=np.int64) for name in SPLITS))


def splits_of_new_data(samples: Sequence[Sample], given: GivenSplits, known: Collection[str]) -> Splits:
    """Splits for measuring a finished run on other data: their own test split, or all samples if they have none.

    Samples whose content is in `known` are left out; the train split is empty.
    """
    is_known = np.array([sample.content in known for sample in samples])
    names = np.array([name or "" for name in given or [None] * len(samples)])
    test = names == "test" if "test" in names else np.full(len(samples), True)
    return Splits(*(np.flatnonzero(part & ~is_known) for part in (False, names == "val", test)))
