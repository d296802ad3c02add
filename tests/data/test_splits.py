from itertools import combinations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from thaw.data.splits import Splits, completed_splits, few_per_class, fold_splits, random_splits, require_enough

TARGETS = np.repeat([0, 1, 2], [60, 30, 10])
DISTINCT = np.arange(100)
SOME_EQUAL = np.arange(100)
for equal in (range(9), (9, 10, 70), (60, 61, 62), (90, 91)):
    SOME_EQUAL[list(equal)] = equal[0]
PAIRS = np.arange(100) // 2
"""No sample is alone."""


def parts(splits: Splits) -> list[np.ndarray]:
    return [splits.train, splits.val, splits.test]


def test_splits_cover_all_samples_once_in_the_proportions_of_the_classes() -> None:
    splits = random_splits(TARGETS, val_fraction=0.2, test_fraction=0.2, seed=0)
    parts = (splits.train, splits.val, splits.test)
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert [np.bincount(TARGETS[part]).tolist() for part in parts] == [[36, 18, 6], [12, 6, 2], [12, 6, 2]]
    again, other = (random_splits(TARGETS, 0.2, 0.2, seed) for seed in (0, 1))
    assert np.array_equal(splits.train, again.train)
    assert not np.array_equal(splits.train, other.train)


def test_every_sample_tests_in_exactly_one_fold() -> None:
    folds = [fold_splits(TARGETS, fold, folds=5, val_fraction=0.2, seed=0) for fold in range(5)]
    assert sorted(np.concatenate([splits.test for splits in folds])) == list(range(100))
    for splits in folds:
        assert sorted(np.concatenate([splits.train, splits.val, splits.test])) == list(range(100))
        assert np.bincount(TARGETS[splits.test]).tolist() == [12, 6, 2]


@pytest.mark.parametrize("groups", [SOME_EQUAL, PAIRS])
@pytest.mark.parametrize("cut", ["fractions", "val of given splits", "fold"])
@pytest.mark.parametrize("seed", range(5))
def test_equal_samples_lie_in_one_split(cut: str, groups: np.ndarray, seed: int) -> None:
    def split(groups: np.ndarray | None, fold: int = 3) -> Splits:
        if cut == "fractions":
            return random_splits(TARGETS, 0.2, 0.2, seed, groups)
        if cut == "fold":
            return fold_splits(TARGETS, fold, 5, 0.2, seed, groups)
        given = [None, "train", None, None, "test"] * 20
        return completed_splits(given, TARGETS, 0.2, 0.2, seed, groups)

    plain, together = split(None), split(groups)
    assert sorted(np.concatenate(parts(together))) == list(range(100))
    thaws_own = parts(together)[: 2 if cut == "val of given splits" else 3]
    for one, other in combinations([set(groups[part]) for part in thaws_own], 2):
        assert not one & other
    for was, now in zip(parts(plain), parts(together), strict=True):
        counts = [np.bincount(TARGETS[part], minlength=3) for part in (was, now)]
        assert np.abs(counts[0] - counts[1]).max() <= (0 if groups is SOME_EQUAL else 1), "of each class"
    for was, now, again in zip(parts(plain), parts(split(DISTINCT)), parts(split(None)), strict=True):
        assert np.array_equal(was, now), "without equal samples, nothing moves"
        assert np.array_equal(was, again)
    for one, other in zip(parts(together), parts(split(groups)), strict=True):
        assert np.array_equal(one, other), "by the seed"
    if cut == "fold":
        tested = [split(groups, fold).test for fold in range(5)]
        assert sorted(np.concatenate(tested)) == list(range(100))


def many_of_some_groups(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and groups of 30 patients with 5 to 79 samples each of 4 classes, in a mixture of their own."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(5, 80, 30)
    targets = [draw.choice(4, size, p=draw.dirichlet(np.ones(4))) for size in sizes]
    return np.concatenate(targets), np.repeat(np.arange(30), sizes)


def distance(tests: list[np.ndarray], targets: np.ndarray, fractions: list[float]) -> float:
    """Samples that are of another class and part than they should be, as a share of all."""
    counts = np.array([np.bincount(targets[test], minlength=targets.max() + 1) for test in tests])
    return float(np.abs(counts - np.outer(fractions, np.bincount(targets))).sum() / len(targets))


def test_large_groups_are_kept_whole_near_to_stratified_and_to_the_fractions() -> None:
    ours, sklearns, chosen = [], [], set()
    for seed in range(5):
        targets, groups = many_of_some_groups(seed)
        splits = random_splits(targets, 0.15, 0.2, seed, groups)
        assert sorted(np.concatenate(parts(splits))) == list(range(len(targets)))
        for one, other in combinations([set(groups[part]) for part in parts(splits)], 2):
            assert not one & other
        sizes = [len(part) / len(targets) for part in parts(splits)]
        assert np.abs(np.subtract(sizes, [0.65, 0.15, 0.2])).max() < 0.03
        assert distance(parts(splits), targets, [0.65, 0.15, 0.2]) < 0.12
        folds = [fold_splits(targets, fold, 5, 0.2, seed, groups) for fold in range(5)]
        assert sorted(np.concatenate([splits.test for splits in folds])) == list(range(len(targets)))
        assert not any(set(groups[splits.train]) & set(groups[splits.val]) for splits in folds)
        ours.append(distance([splits.test for splits in folds], targets, [0.2] * 5))
        known = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(targets, targets, groups)
        sklearns.append(distance([test for _, test in known], targets, [0.2] * 5))
        targets, groups = many_of_some_groups(0)
        chosen.add(tuple(random_splits(targets, 0.15, 0.2, seed, groups).test))
    assert np.mean(ours) <= np.mean(sklearns)
    assert len(chosen) > 2, "by the seed"


def test_groups_of_one_class_each_come_near_to_the_fractions() -> None:
    distances = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        sizes = draw.integers(5, 80, 20)
        targets, groups = np.repeat(draw.integers(0, 2, 20), sizes), np.repeat(np.arange(20), sizes)
        splits = random_splits(targets, 0.15, 0.2, seed, groups)
        distances.append(distance(parts(splits), targets, [0.65, 0.15, 0.2]))
    assert np.mean(distances) < 0.04


def test_few_groups_fill_every_part_or_are_refused() -> None:
    targets = np.tile([0, 1], 60)
    for groups in (np.repeat([0, 1, 2], 40), np.repeat([0, 1, 2], [100, 18, 2])):
        assert all(len(part) for part in parts(random_splits(targets, 0.2, 0.1, 0, groups)))
    assert len(random_splits(targets, 0.2, 0, 0, np.repeat([0, 1], 60)).val) == 60
    for groups, said in ((np.repeat([0, 1], 60), "2 groups of"), (np.zeros(120, int), "1 group of")):
        with pytest.raises(ValueError, match=rf"{said} samples .*cannot be shared out among 3 parts .*data.group=null"):
            random_splits(targets, 0.2, 0.1, 0, groups)


def test_equal_samples_count_once_where_a_class_needs_several() -> None:
    targets = np.array([0, 0, 0, 1, 1, 1])
    require_enough(targets, ["a", "b"], 3, np.array([0, 1, 2, 3, 4, 5]))
    with pytest.raises(ValueError, match=r"at least 3 different samples, .* too few: b \(2\)"):
        require_enough(targets, ["a", "b"], 3, np.array([0, 1, 2, 3, 3, 0]))


def test_fewer_labels_are_a_part_of_more() -> None:
    train = random_splits(TARGETS, 0.2, 0.2, seed=0).train
    one, five = (few_per_class(train, TARGETS, k, seed=3) for k in (1, 5))
    assert np.bincount(TARGETS[one]).tolist() == [1, 1, 1]
    assert np.bincount(TARGETS[five]).tolist() == [5, 5, 5]
    assert set(one) < set(five) < set(train)


def test_numbers_that_do_not_fit_are_refused_with_those_that_do() -> None:
    train = random_splits(TARGETS, 0.2, 0.2, seed=0).train
    with pytest.raises(ValueError, match=r"labels_per_class=7 is too large.*Type data.labels_per_class=6 or less"):
        few_per_class(train, TARGETS, 7, seed=0)
    with pytest.raises(ValueError, match=r"data.fold=5 is out of range: with data.folds=5 it goes from 0 to 4"):
        fold_splits(TARGETS, 5, 5, 0.2, 0)
    with pytest.raises(ValueError, match="only 10 samples: at most 10"):
        fold_splits(TARGETS, 0, 11, 0.2, 0)
    with pytest.raises(ValueError, match="sum below 1"):
        random_splits(TARGETS, val_fraction=0.6, test_fraction=0.4, seed=0)
    with pytest.raises(ValueError, match=r"cannot be cut from .* with some of each class"):
        random_splits(TARGETS, val_fraction=0.2, test_fraction=0.001, seed=0)
