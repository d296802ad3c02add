"""data.group: what must share a split, by a column, by a pattern of the path, or as a source says."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from tests.conftest import TINY
from tests.language import pairs
from tests.photos import photos
from thaw.check import check
from thaw.config.assemble import split_data
from thaw.config.conf_folder import CONF
from thaw.data.groups import LOOKS_GROUPED, groups_of_paths, unnamed_groups
from thaw.data.labelled import LabelledData
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.train import train

Config = Callable[..., DictConfig]

PATTERN = r"data.group='(patient\d+)'"


def patients(folder: Path) -> Path:
    """photos/<colour>/patient<0 ... 9>_<number>.png, of each patient some of each colour, beside photos/labels.csv."""
    root = photos(folder, per_class=30)
    for file in sorted(root.glob("*/*.png")):
        file.rename(file.with_name(f"patient{int(file.stem) % 10}_{int(file.stem):03}.png"))
    with (root / "labels.csv").open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["path", "label", "site"])
        for file in sorted(root.glob("*/*.png")):
            rows.writerow([file.relative_to(root), file.parent.name, int(file.stem[7:8]) // 2])
    return root


def groups_of(data: LabelledData) -> list[set[str]]:
    """Groups of train, val and test, which have none in common."""
    assert data.facts.groups is not None
    groups = [{data.facts.groups[index] for index in part} for part in data.parts.values()]
    assert not any(one & other for one, other in combinations(groups, 2))
    return groups


def test_a_group_is_a_pattern_of_the_path_or_a_column(config: Config, tmp_path: Path) -> None:
    root = patients(tmp_path)
    by_path = split_data(config("data=image_folder", f"data.root={root}", PATTERN))
    assert [len(groups) for groups in groups_of(by_path)] == [7, 2, 1]
    assert [by_path.labels.counts(part) for part in by_path.parts.values()] == [[21] * 3, [6] * 3, [3] * 3]
    assert "10 groups: 7 in train, 2 in val, 1 in test" in by_path.report()
    assert by_path.warnings() == []
    table = [f"data.table={root}/labels.csv", "data=image_table"]
    assert sorted(map(len, groups_of(split_data(config(*table, "data.group=site"))))) == [1, 1, 3]
    assert groups_of(split_data(config(*table, PATTERN))) == groups_of(by_path)
    (tmp_path / "texts").mkdir()
    writers = split_data(
        config(
            *("data=text_table", f"data.table={pairs(tmp_path / 'texts')}", "data.text=first"),
            *("data.label=same", "data.group=writer"),
        )
    )
    assert sum(map(len, groups_of(writers))) == 8


def test_few_labels_and_folds_keep_to_the_groups(config: Config, tmp_path: Path) -> None:
    typed = ["data=image_folder", f"data.root={patients(tmp_path)}", PATTERN]
    few = split_data(config(*typed, "data.labels_per_class=2"))
    assert [few.labels.counts(part) for part in few.parts.values()] == [[2] * 3, [6] * 3, [3] * 3]
    groups_of(few)
    tested = [groups_of(split_data(config(*typed, f"data.fold={fold}")))[2] for fold in range(5)]
    assert sorted(group for groups in tested for group in groups) == [f"patient{number}" for number in range(10)]
    with pytest.raises(UserError, match=r"10 groups of samples .* cannot be shared out among 11 parts"):
        split_data(config(*typed, "data.fold=0", "data.folds=11"))


def test_groups_in_two_of_the_data_s_own_splits_are_reported(config: Config, tmp_path: Path) -> None:
    root = patients(tmp_path)
    for file in sorted(root.glob("*/*.png")):
        split = "test" if int(file.stem[7:8]) > 7 else "train"
        place = tmp_path / "own" / split / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    shutil.copy(tmp_path / "own/train/red/patient3_003.png", tmp_path / "own/test/red/patient3_999.png")
    typed = ("data=image_folder", f"data.root={tmp_path}/own", PATTERN)
    data = split_data(config(*typed))
    assert "1 groups lie in different splits, so scores will flatter:\n  patient3 (train, test)" in data.report()
    assert data.facts.groups is not None
    train, val = ({data.facts.groups[index] for index in data.parts[name]} for name in ("train", "val"))
    assert not train & val, "val was cut from train"
    assert "patient3 (train, test)" in check(config(*typed, name="check"))


def test_files_that_look_grouped_are_warned_of_with_what_to_type(config: Config, tmp_path: Path) -> None:
    root = patients(tmp_path)
    typed = ("data=image_folder", f"data.root={root}")
    (warning,) = split_data(config(*typed)).warnings()
    assert "look like 10 groups, patient0 (9 files), patient1 (9 files)" in warning
    hint = warning.partition("Type '")[2].partition("' to keep")[0]
    override = OverridesParser.create().parse_override(hint)
    assert override.value() == LOOKS_GROUPED, "as Hydra reads it"
    assert split_data(config(*typed, hint)).facts.groups == split_data(config(*typed, PATTERN)).facts.groups
    # One folder for each patient.
    in_folders = [f"{name}/{i}" for name in ("ill", "well") for number in range(9) for i in frames(f"p{number}/")]
    (warning,) = unnamed_groups(in_folders, 2)
    assert "9 groups, p0 (8 files)" in warning


def frames(start: str, count: int = 4) -> list[str]:
    return [f"{start}{number:03}.jpg" for number in range(count)]


@pytest.mark.parametrize(
    "names",
    [
        frames("cat/IMG_", 50) + frames("dog/IMG_", 50),
        frames("n01440764/n01440764_", 50) + frames("n01443537/n01443537_", 50),
        frames("3/", 50) + frames("4/", 50),
        [f"cat/glass{number}.jpg" for number in range(99)],
        [f"cat/IMG_201501{day:02}_{day + 1:02}4104.jpg" for day in range(1, 31) for _ in range(2)],
        [f"cat/{number:08x}-{number}.jpg" for number in range(90)],
        frames("cat/patient1_") + frames("dog/patient2_") + [f"cat/{number}.jpg" for number in range(50)],
        [],
    ],
    ids=["cameras", "classes", "digits", "numbers", "times", "alone", "some", "none"],
)
def test_usual_names_are_not_warned_of(names: list[str]) -> None:
    assert unnamed_groups(names, 2) == []


def test_what_finds_no_group_is_refused(config: Config, tmp_path: Path) -> None:
    paths = ["a/p1_1.png", "a/p1_2.png", "b/x.png"]
    assert groups_of_paths(r"p\d+", paths[:2]) == groups_of_paths(r"/(p1)", paths[:2])[:1] * 2 == ["p1", "p1"]
    with pytest.raises(
        UserError, match=r"1 of 3 paths have no group by data.group=(?s:.*)  b/x.png\n.*first parenthesis"
    ):
        groups_of_paths(r"(p\d+)_", paths)
    with pytest.raises(UserError, match=r"data.group=\(p is no regular expression \(missing \), .*type 'data.group="):
        groups_of_paths("(p", paths)
    root = patients(tmp_path)
    with pytest.raises(UserError, match="1 group of samples"):
        split_data(config("data=image_folder", f"data.root={root}", "data.group='(patient)'"))
    table = ["data=image_table", f"data.table={root}/labels.csv"]
    with pytest.raises(UserError, match=r"no column patient, but path, label, site: type data.group=\.\.\."):
        split_data(config(*table, "data.group=patient"))
    with pytest.raises(UserError, match="90 of 90 paths have no group"):
        split_data(config(*table, "data.group='(hospital[0-9])'"))
    content = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*content[:5], content[5][:-1], *content[6:]]) + "\n")
    with pytest.raises(UserError, match=r"labels.csv, line 6: no group in column site"):
        split_data(config(*table, "data.group=site"))
    with pytest.raises(UserError, match=r"data.group and data.label both name the column same"):
        split_data(config("data=text_table", f"data.table={pairs(tmp_path)}", "data.label=same", "data.group=same"))


def test_the_commands_of_the_page_keep_groups_together(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    patients(tmp_path).rename("photographs")
    (tmp_path / "reviews.csv").write_text(
        pairs(tmp_path).read_text().replace("first,second,same,writer", "text,_,label,author")
    )
    page = (CONF.parent / "docs/groups.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m thaw\.(\w+) (.+)$", page, re.MULTILINE)
    assert len(commands) == 4
    for command, typed in commands:
        cfg = config(*shlex.split(typed, comments=True), name=command)
        assert sum(map(len, groups_of(split_data(cfg)))) > 4


def test_a_run_is_measured_and_goes_on_with_the_split_that_it_recorded(config: Config, tmp_path: Path) -> None:
    root = patients(tmp_path)
    typed = [
        *(word for word in TINY if not word.startswith("data.")),
        "data=image_folder",
        f"data.root={root}",
        PATTERN,
    ]
    train(config(*typed, "freezing=head_only", "freezing.epochs=1", "data.num_workers=0"))
    run = tmp_path / "run"
    assert "10 groups: 7 in train, 2 in val, 1 in test" in (run / "data.txt").read_text()
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    again = evaluate(config(f"run={run}", name="evaluate"))
    assert again["accuracy/test"] == metrics["accuracy/test"]
    # New photographs of one patient are measured; there is nothing to split.
    other = tmp_path / "other"
    for file in root.glob("*/patient1_*.png"):
        (other / file.parent.name).mkdir(parents=True, exist_ok=True)
        (other / file.parent.name / file.name).write_bytes(file.read_bytes() + b" ")
    assert "accuracy/test" in evaluate(config(f"run={run}", f"+data.root={other}", name="evaluate"))
