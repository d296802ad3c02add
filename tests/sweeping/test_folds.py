import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import TINY
from thaw.manifest import list_in_manifest
from thaw.runs.confusion import Confusion, confusion_csv
from thaw.sweeping.folds import mean_and_deviation, read_folds, recall_table, recalls
from thaw.sweeping.tables import write_summary
from thaw.train import train

nan = float("nan")

NAMES = ["ant", "bee", "cat"]
FIRST = Confusion(NAMES, [[4, 0, 0], [1, 3, 0], [0, 0, 0]])  # recalls 1, 3/4 and none
SECOND = Confusion(NAMES, [[2, 1, 1], [0, 2, 0], [1, 0, 1]])  # 1/2, 1 and 1/2
THIRD = Confusion(NAMES, [[0, 0, 1], [2, 2, 4], [0, 0, 0]])  # 0, 1/4 and none


def trial(sweep: Path, number: int, tested: Confusion | None, **overrides: object) -> None:
    folder = sweep / str(number)
    folder.mkdir()
    results = {"monitor": "m/val", "mode": "max", "best": 0.5, "epoch": 4, "seconds": 2.5, "metrics": {}}
    (folder / "metrics.json").write_text(json.dumps(results))
    typed = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    (folder / "overrides.json").write_text(json.dumps(typed))
    if tested is not None:
        (folder / "confusion_test.csv").write_text(confusion_csv(tested) + "\n")


def recall_lines(sweep: Path) -> list[str]:
    """The table of the summary that has a row for each class."""
    first, *others = write_summary(sweep).split("\n\n")
    assert first.startswith("| trial |")
    return next((part.splitlines() for part in others if part.startswith("| class |")), [])


def test_recall_is_the_diagonal_by_the_sum_of_its_row() -> None:
    found = recalls(torch.tensor([FIRST.counts, SECOND.counts, THIRD.counts]))
    expected = torch.tensor([[1.0, 0.75, nan], [0.5, 1.0, 0.5], [0.0, 0.25, nan]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_folds_without_a_sample_of_a_class_count_neither_in_mean_nor_in_deviation() -> None:
    values = torch.tensor([[1.0, 0.25, nan, nan], [0.5, nan, 0.5, nan], [0.0, 0.75, nan, nan]])
    mean, deviation = mean_and_deviation(values)
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.5, 0.5, nan]), equal_nan=True)
    # Of 1, 1/2, 0: sqrt((1/4 + 0 + 1/4) / 2); of 1/4, 3/4: sqrt((1/16 + 1/16) / 1); of one or none: not defined.
    torch.testing.assert_close(deviation, torch.tensor([0.5, 0.125**0.5, nan, nan]), equal_nan=True)


def test_without_other_choices_there_is_one_pair_of_columns() -> None:
    assert recall_table({"": [FIRST, SECOND, THIRD]}) == [
        ["class", "tested", "mean recall of 3 folds", "deviation"],
        ["ant", "9", "0.5000", "0.5000"],
        ["bee", "14", "0.6667", "0.3819"],  # of 3/4, 1, 1/4
        ["cat", "2", "0.5000", "nan"],
    ]
    assert recall_table({}) == []


def test_each_choice_has_its_pair_and_says_where_it_tested_others() -> None:
    assert recall_table({"lr=1": [FIRST, SECOND], "lr=2": [SECOND, THIRD]}) == [
        [
            *("class", "tested"),
            *("lr=1: mean recall of 2 folds", "lr=1: deviation"),
            *("lr=2: mean recall of 2 folds", "lr=2: deviation"),
        ],
        ["ant", "8 / 5", "0.7500", "0.3536", "0.2500", "0.3536"],
        ["bee", "6 / 10", "0.8750", "0.1768", "0.6250", "0.5303"],
        ["cat", "2", "0.5000", "nan", "0.5000", "nan"],
    ]


def test_names_that_no_terminal_can_show_are_shown_somehow() -> None:
    odd = Confusion(["caf\udce9", "é"], [[1, 0], [0, 1]])
    assert [row[0] for row in recall_table({"": [odd, odd]})[1:]] == ["caf?", "é"]


def test_a_sweep_over_folds_has_a_table_of_classes(tmp_path: Path) -> None:
    for number, (lr, fold, tested) in enumerate([(1, 0, FIRST), (1, 1, SECOND), (2, 0, SECOND), (2, 1, SECOND)]):
        trial(tmp_path, number, tested, optimizer__lr=lr, data__fold=fold, seed=3)
    header, _, *rows = recall_lines(tmp_path)
    assert header.startswith("| class | tested | optimizer.lr=1: mean recall of 2 folds | optimizer.lr=1: deviation |")
    assert [row.split(" | ")[0] for row in rows] == ["| ant", "| bee", "| cat"]
    assert rows[0] == "| ant | 8 | 0.7500 | 0.3536 | 0.5000 | 0.0000 |"
    assert "ant" not in (tmp_path / "summary.csv").read_text()


@pytest.mark.parametrize("overrides", [{"seed": (0, 1)}, {"seed": (0, 1), "data__fold": (2, 2)}])
def test_a_sweep_that_goes_over_no_folds_has_no_table_of_classes(
    tmp_path: Path, overrides: dict[str, tuple[int, int]]
) -> None:
    for number in range(2):
        trial(tmp_path, number, FIRST, **{key: values[number] for key, values in overrides.items()})
    assert recall_lines(tmp_path) == []


def test_trials_that_failed_do_not_make_a_choice(tmp_path: Path) -> None:
    trial(tmp_path, 0, FIRST, lr=1, data__fold=0)
    trial(tmp_path, 1, SECOND, lr=1, data__fold=1)
    trial(tmp_path, 2, THIRD, lr=2, data__fold=0)
    (tmp_path / "2/failure.txt").write_text("no")
    assert recall_lines(tmp_path)[0] == "| class | tested | mean recall of 2 folds | deviation |"


def test_trials_of_other_classes_or_without_a_test_or_a_fold_are_left_out(tmp_path: Path) -> None:
    others = Confusion(["ant", "bee", "dog"], FIRST.counts)
    tests = {"0": FIRST, "1": None, "2": others, "3": THIRD, "null": SECOND}
    for number, (fold, tested) in enumerate(tests.items()):
        trial(tmp_path, number, tested, data__fold=fold)
    assert read_folds({tmp_path / str(n): {"data.fold": fold} for n, fold in enumerate(tests)}) == {"": [FIRST, THIRD]}
    assert recall_lines(tmp_path)[2] == "| ant | 5 | 0.5000 | 0.7071 |"


def test_over_all_folds_every_sample_is_tested_once(config: Callable[..., DictConfig], tmp_path: Path) -> None:
    recalled = []
    for fold in range(2):
        where = (f"run_folder={tmp_path / 's' / str(fold)}", f"data.fold={fold}", "data.folds=2")
        recalled.append(train(config(*TINY, *where, "freezing=head_only", "freezing.epochs=1"))["macro_recall/test"])
        overrides = tmp_path / f"s/{fold}/overrides.json"
        overrides.write_text(json.dumps([f"data.fold={fold}"]))
        list_in_manifest(overrides)
    rows = [line.strip("| ").split(" | ") for line in recall_lines(tmp_path / "s")[2:]]
    assert [row[0] for row in rows] == [str(digit) for digit in range(10)]
    assert sum(int(row[1]) for row in rows) == 1797
    assert sum(float(row[2]) for row in rows) / 10 == pytest.approx(sum(recalled) / 2, abs=1e-4)
