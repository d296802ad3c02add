"""Labels of tables and of sources: any number of them for each sample, and numbers; how they are read and split."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig

from thaw.check import check
from thaw.data.labels import Labels
from thaw.data.multi_labels import MultiLabels
from thaw.data.number_labels import NumberLabels
from thaw.data.source import read_facts
from thaw.data.splits import one_stratum
from thaw.data.splitting import make_splits
from thaw.data.text_table import TextTable
from thaw.errors import UserError

Config = Callable[..., DictConfig]
SPLITTING: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.2, "fold": None, "folds": 5}


def texts(folder: Path, kind: type[Labels], label: str | list[str], content: str, name: str = "t.csv") -> TextTable:
    (folder / name).write_text(content, encoding="utf-8")
    return TextTable(str(folder / name), "text", label, None, "utf-8-sig", True, "error", kind=kind)


@pytest.mark.parametrize(
    ("label", "content", "name"),
    [
        (["cat", "dog"], "text,cat,dog\na,1,0\nb,0,0\nc,true,1.0\nd,No,yes\n", "t.csv"),
        ("tags", 'text,tags\na,cat\nb,\nc,"[""dog"", ""cat""]"\nd, dog | dog\n', "t.csv"),
        (
            "tags",
            "\n".join(
                json.dumps({"text": text, "tags": tags})
                for text, tags in (("a", ["cat"]), ("b", []), ("c", "dog|cat"), ("d", ["dog"]))
            ),
            "t.jsonl",
        ),
        ("tags", "text,tags\na,cat\nb,nan\nc,cat|dog\nd,dog|\n", "t.csv"),
    ],
)
def test_several_labels_are_columns_or_a_list_in_one(
    tmp_path: Path, label: str | list[str], content: str, name: str
) -> None:
    source = texts(tmp_path, MultiLabels, label, content, name)
    labels = read_facts(source, MultiLabels).labels
    assert labels.names == ["cat", "dog"]
    assert labels.targets.tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]
    assert [labels.text(index) for index in range(4)] == ["cat", "", "cat|dog", "dog"]


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    source = texts(tmp_path, NumberLabels, ["stars", "price"], "text,stars,price\na,4,0.1\nb,-1e3,16777217\n")
    labels = read_facts(source, NumberLabels).labels
    assert (labels.names, labels.targets.tolist()) == (["stars", "price"], [[4, 0.1], [-1000, 16777217]])
    assert [labels.text(0), labels.text(1)] == ["4; 0.1", "-1000; 16777217"]
    assert labels.tensor.dtype.is_floating_point


@pytest.mark.parametrize(
    ("kind", "label", "content", "message"),
    [
        (MultiLabels, ["cat", "dog"], "text,cat,dog\na,1,2\n", r"t.csv, line 2: '2' in column dog: expected 0 or 1"),
        (MultiLabels, "tags", "text,tags\na,[1]\n", r"line 2: column tags lists 1: expected names of labels, as texts"),
        (MultiLabels, "tags", "text,tags\na,[cat\n", r"line 2: column tags holds \[cat, which is no JSON list"),
        (MultiLabels, "tags", "text,tags\na,\n", r"no sample has a label: column tags is empty"),
        (NumberLabels, "stars", "text,stars\na,1\nb,\n", r"1 of 2 rows .*\n  t.csv, line 3: no number in column stars"),
        (NumberLabels, "stars", 'text,stars\na,"3,5"\n', r"'3,5' in column stars is no number: a decimal point is exp"),
        (NumberLabels, "stars", "text,stars\na,inf\n", r"'inf' in column stars is no number"),
        (NumberLabels, ["a", "a"], "text,a\nx,1\n", r"data.label=\[a,a\]: expected a column of labels, or several"),
        (NumberLabels, ["text"], "text,a\nx,1\n", r"data.text and data.label both name the column text"),
    ],
)
def test_labels_that_cannot_be_read_are_named_by_row(
    tmp_path: Path, kind: type[Labels], label: str | list[str], content: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        texts(tmp_path, kind, label, content)


class Told:
    """A user's own source of texts."""

    def __init__(self, class_names: list[str], labels: list[Any]):
        self.class_names, self.labels = class_names, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        return f"text {index}", self.labels[index]


def test_a_source_gives_rows_or_classes() -> None:
    rows = read_facts(Told(["a", "b"], [np.array([0, 1]), [True, False], (1, 1)]), MultiLabels).labels
    assert rows.targets.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert read_facts(Told(["a", "b"], [1, 0]), MultiLabels).labels.targets.tolist() == [[0, 1], [1, 0]]
    assert read_facts(Told(["10", "2.5"], [1, 0]), NumberLabels).labels.targets.tolist() == [[2.5], [10]]
    numbers = read_facts(Told(["age", "size"], [(30, 1.5), np.array([4, 0])]), NumberLabels).labels
    assert (numbers.names, numbers.targets.tolist()) == (["age", "size"], [[30, 1.5], [4, 0]])
    assert read_facts(Told(["age"], [30.5, 4]), NumberLabels).labels.targets.tolist() == [[30.5], [4]]
    with pytest.raises(UserError, match=r"sample 1 is \[0, 2\] \(list\): expected 2 values 0 or 1, one for each"):
        read_facts(Told(["a", "b"], [[0, 1], [0, 2]]), MultiLabels)
    with pytest.raises(UserError, match=r"sample 0 is 1 \(int\): expected 2 numbers, .* or classes whose names"):
        read_facts(Told(["a", "b"], [1, 0]), NumberLabels)
    with pytest.raises(UserError, match=r"the label 'a\|b' holds a \|"):
        read_facts(Told(["a|b", "c"], [[0, 1]]), MultiLabels)


def many(kind: str) -> Labels:
    rng = np.random.default_rng(0)
    if kind == "multi":
        return MultiLabels([*"abcd"], (rng.random((1000, 4)) < [0.5, 0.2, 0.05, 0.01]).astype(np.int64))
    return NumberLabels(["price"], rng.lognormal(size=(1000, 1)))


def test_splits_keep_the_share_of_every_label_also_of_rare_ones() -> None:
    labels = many("multi")
    total = labels.targets.sum(axis=0)
    folds = {**SPLITTING, "fold": 1}
    for settings in (SPLITTING, folds):
        splits = make_splits(labels, None, seed=0, **settings)
        everything: NDArray[np.int64] = np.concatenate([splits.train, splits.val, splits.test])
        assert sorted(everything.tolist()) == list(range(1000))
        assert np.abs(labels.targets[splits.test].sum(axis=0) - total * 0.2).max() <= 2
        assert np.abs(labels.targets[splits.val].sum(axis=0) - total * 0.2).max() <= 2


def test_splits_of_numbers_have_the_same_quantiles() -> None:
    labels = many("numbers")
    splits = make_splits(labels, None, seed=0, **SPLITTING)
    edges = np.quantile(labels.targets[:, 0], np.arange(1, 10) / 10)
    for part in (splits.train, splits.val, splits.test):
        counts = np.bincount(np.digitize(labels.targets[part, 0], edges))
        assert counts.max() - counts.min() <= 1
    few, equal = NumberLabels(["x"], np.arange(9.0)[:, None]), NumberLabels(["x"], np.repeat([1.0, 5.0], 50)[:, None])
    assert few.strata.tolist() == [0] * 9
    assert equal.strata.tolist() == [0] * 50 + [1] * 50


def test_groups_of_samples_with_several_labels_share_a_split() -> None:
    labels, groups = many("multi"), np.arange(1000) // 4
    splits = make_splits(labels, None, seed=0, groups=groups, **SPLITTING)
    owners = [set(groups[part]) for part in (splits.train, splits.val, splits.test)]
    assert not any(one & other for one, other in combinations(owners, 2))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == pytest.approx([600, 200, 200], abs=20)
    assert one_stratum(labels.strata)[labels.targets[:, 3] == 1].tolist() == [3] * labels.targets[:, 3].sum()


def test_what_cannot_be_learnt_is_refused() -> None:
    rare = MultiLabels(["a", "b"], np.array([[1, 0]] * 20 + [[1, 1]] * 2))
    with pytest.raises(UserError, match=r"at least 3 different samples.* too few: b \(2\)"):
        make_splits(rare, None, seed=0, **SPLITTING)
    with pytest.raises(UserError, match=r"no training sample has the label b: it could never be learnt"):
        make_splits(rare, ["train"] * 20 + ["val", "test"], seed=0, **SPLITTING)
    with pytest.raises(UserError, match=r"x is the same number in all training samples: there is nothing to learn"):
        make_splits(NumberLabels(["x"], np.ones((30, 1))), None, seed=0, **SPLITTING)


def test_what_a_task_is_told_of_the_training_samples() -> None:
    multi, train = MultiLabels(["a", "b"], np.array([[1, 0], [1, 1], [0, 0], [1, 0], [1, 1]])), np.arange(4)
    assert multi.task_facts(train, weighs=False) == {}
    assert multi.task_facts(train, weighs=True) == {"class_weights": [1 / 3, 3]}
    numbers = NumberLabels(["x"], np.array([[1.0], [3.0], [100.0]]))
    assert numbers.task_facts(np.arange(2), weighs=False) == {"mean": [2.0], "std": [1.0]}
    with pytest.raises(UserError, match=r"data.balance=loss weighs classes, and these labels are numbers"):
        numbers.task_facts(train, weighs=True)


def test_labels_in_the_order_of_a_trained_network() -> None:
    multi = MultiLabels(["b"], np.array([[1], [0]])).aligned(["a", "b"])
    assert (multi.names, multi.targets.tolist()) == (["a", "b"], [[0, 1], [0, 0]])
    with pytest.raises(UserError, match=r"trained on the labels a; this data also has b"):
        multi.aligned(["a"])
    numbers = NumberLabels(["x", "y"], np.array([[1.0, 2.0]]))
    assert numbers.aligned(["y", "x"]).targets.tolist() == [[2, 1]]
    with pytest.raises(UserError, match=r"trained on x, z, and this data has x, y: name the same columns"):
        numbers.aligned(["x", "z"])


def test_the_check_shows_labels_and_numbers(config: Config, tmp_path: Path) -> None:
    rows = [f"text number {i},{'cat|dog' if i % 3 else ''},{i / 10}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,tags,score", *rows]))

    def checked(*typed: str) -> str:
        return check(config("data=text_table", f"data.table={tmp_path}/t.csv", *typed, name="check"))

    report = checked("data.label=tags", "task=multi_label")
    assert "(no label)" in report
    assert "2 labels, samples" in report
    report = checked("data.label=score", "task=regression")
    assert "largest" in report
    assert "5.9" in report
    with pytest.raises(UserError, match=r"names 2 columns, and each sample has one class: type task=multi_label"):
        checked("data.label=[tags,score]")
    with pytest.raises(UserError, match=r"task=regression has no single one for each: type data.labels_per_class=null"):
        checked("data.label=score", "task=regression", "data.labels_per_class=5")
