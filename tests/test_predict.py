"""Predictions of a finished run, of whatever names images."""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from tests.conftest import TINY
from tests.data.zoo import bad_files, odd_images
from tests.photos import COLOURS, photos
from thaw.config.assemble import run_with_weights, split_data
from thaw.config.recorded import read_config
from thaw.data.loader import default_workers
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.manifest import list_in_manifest
from thaw.predict import predict
from thaw.train import train

Config = Callable[..., DictConfig]

COLOUR_RUN = (
    *TINY,
    "data=image_folder",
    "data.labels_per_class=null",
    "data.num_workers=0",
    "+backbone.channels=3",
    "freezing=full",
    "freezing.epochs=2",
)


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """A finished run on photographs of three colours, which are gone by now."""
    root = photos(tmp_path)
    train(config(*COLOUR_RUN, f"data.root={root}"))
    shutil.move(root, tmp_path / "elsewhere")
    return tmp_path / "run"


def predicted(config: Config, run: Path, source: object, *choices: str) -> tuple[list[dict[str, str]], Path]:
    file = predict(config(f"run={run}", f"input='{source}'", "num_workers=0", *choices, name="predict"))
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened)), file


def test_a_row_an_image_with_all_probabilities(config: Config, run: Path, tmp_path: Path) -> None:
    rows, file = predicted(config, run, tmp_path / "elsewhere", "top_k=2", "batch_size=5")
    assert len(rows) == 24
    assert list(rows[0]) == ["path", "label", "confidence", "top", *(f"p({colour})" for colour in sorted(COLOURS))]
    records = [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]
    for row, record in zip(rows, records, strict=True):
        each = {name: float(row[f"p({name})"]) for name in COLOURS}
        assert sum(each.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(each, key=lambda name: each[name])
        assert float(row["confidence"]) == max(each.values())
        assert record["probabilities"] == each
        assert [name for name, _ in record["top"]] == sorted(each, key=lambda name: -each[name])[:2]
        assert (record["path"], record["label"]) == (row["path"], row["label"])
    again, _ = predicted(
        config, run, tmp_path / "elsewhere", f"num_workers={min(2, default_workers())}", f"output={tmp_path}/out/two"
    )
    assert [row["label"] for row in again] == [row["label"] for row in rows]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["two.csv", "two.jsonl"]


def test_an_ensemble_gives_the_mean_over_the_trials_of_a_sweep(config: Config, run: Path, tmp_path: Path) -> None:
    photographs, sweep = tmp_path / "elsewhere", tmp_path / "sweep"
    train(config(*COLOUR_RUN, f"data.root={photographs}", "optimizer.lr=0.01", f"run_folder={sweep}/1"))
    shutil.copytree(run, sweep / "0")
    (sweep / "2").mkdir()  # a trial without a result
    members = [predicted(config, sweep / name, photographs)[0] for name in ("0", "1")]
    file = predict(config(f"ensemble={sweep}", f"input={photographs}", "num_workers=0", name="predict"))
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert file.parent == sweep
    for name in (f"p({colour})" for colour in COLOURS):
        for row, first, second in zip(rows, *members, strict=True):
            assert float(row[name]) == pytest.approx((float(first[name]) + float(second[name])) / 2, abs=1e-6)
    assert [row["p(red)"] for row in members[0]] != [row["p(red)"] for row in members[1]]
    for name in ("0", "1"):  # so hot that every class is as likely, whatever the network says
        (sweep / name / "calibration.json").write_text('{"temperature": 1e9}')
        list_in_manifest(sweep / name / "calibration.json")
    file = predict(config(f"ensemble={sweep}", f"input={photographs}", "calibrate=true", name="predict"))
    with file.open(newline="", encoding="utf-8") as opened:
        assert {round(float(row["p(red)"]), 3) for row in csv.DictReader(opened)} == {round(1 / len(COLOURS), 3)}

    with pytest.raises(UserError, match=f"{tmp_path}/absent holds no finished trials: name the folder of a sweep"):
        predict(config(f"ensemble={tmp_path}/absent", f"input={photographs}", name="predict"))
    shutil.rmtree(photographs / "red")
    train(config(*COLOUR_RUN, f"data.root={photographs}", f"run_folder={sweep}/2"))
    with pytest.raises(UserError, match=r"sweep/2 has other classes than .*sweep/0: they cannot be averaged"):
        predict(config(f"ensemble={sweep}", f"input={photographs}", name="predict"))


def test_folders_of_one_name_are_counted_by_class_and_keep_their_own_tables(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("one", "two"):
        shutil.copytree(tmp_path / "elsewhere", tmp_path / place / "new")
    rows, first = predicted(config, run, tmp_path / "one/new")
    shown = capsys.readouterr().out
    for label, count in Counter(row["label"] for row in rows).items():
        assert re.search(rf"{label} +│ +{count} │ +{count / 24:.1%}", shown)
    _, second = predicted(config, run, tmp_path / "two/new")
    assert first != second
    assert "one/new" in first.read_text()
    assert predicted(config, run, tmp_path / "one/new")[1] == first, "the same input again"


def test_a_run_whose_folder_cannot_be_written_to_is_measured_all_the_same(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"+data.root={tmp_path}/elsewhere"
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    metrics = evaluate(config(f"run={run}", data, f"output={tmp_path}/a/b", name="evaluate"))
    assert json.loads((tmp_path / "a/b/evaluate_test.json").read_text()) == metrics
    assert (tmp_path / "a/b/evaluate_test.html").is_file()
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    capsys.readouterr()
    place = run / "config.yaml/x"  # a file is in the way
    with pytest.raises(
        UserError, match=r"config.yaml/x cannot be written to \(.*\): name another place, output=\.\.\."
    ):
        evaluate(config(f"run={run}", data, f"output={place}", name="evaluate"))
    assert repr(metrics["accuracy/test"]) in capsys.readouterr().out, "printed before"


def test_predictions_agree_with_evaluate(config: Config, run: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    metrics = evaluate(config(f"run={run}", f"+data.root={root}", name="evaluate"))
    data_rows = {row["path"]: row for row in predicted(config, run, root)[0]}
    cfg = read_config(run)
    cfg.data.root = str(root)
    data = split_data(cfg, run_with_weights(str(run)))
    files = [str(data.source.files[i]) for i in data.splits.test]  # type: ignore[attr-defined]
    right = [data_rows[file]["label"] == Path(file).parent.name for file in files]
    assert sum(right) / len(right) == pytest.approx(metrics["accuracy/test"])
    loss = -torch.tensor([float(data_rows[f][f"p({Path(f).parent.name})"]) for f in files]).log().mean()
    assert loss.item() == pytest.approx(metrics["loss/test"], abs=1e-5)


def test_a_run_is_measured_on_its_own_samples_whatever_comes_and_goes(
    config: Config, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "elsewhere"

    trained_on = json.loads((run / "metrics.json").read_text())["metrics"]
    for number in range(20):  # if the data were split again, each would move others to another split
        shutil.copy(root / "red/1.png", root / f"blue/a{number}.png")
    assert evaluate(config(f"run={run}", f"+data.root={root}", name="evaluate")).items() <= trained_on.items()
    shutil.move(root, tmp_path / "photos")
    with pytest.raises(ValueError, match=r"20 samples were added to the data since this run began.*init_from="):
        train(config(f"resume={run}"))
    shutil.move(tmp_path / "photos", root)

    rows = list(csv.DictReader((run / "samples.csv").read_text().splitlines()))
    gone = next(row["sample"] for row in rows if row["split"] == "val")
    shutil.move(root / gone, tmp_path / "gone.png")
    shutil.move(root, tmp_path / "photos")
    with pytest.raises(ValueError, match=rf"1 samples of the run are gone or changed \({gone} "):
        evaluate(config(f"run={run}", name="evaluate"))


def test_other_data_are_measured_whole_but_never_what_was_trained_on(
    config: Config, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def measured(root: Path, *more: str) -> dict[str, float]:
        return evaluate(config(f"run={run}", f"+data.root={root}", *more, name="evaluate"))

    shutil.move(tmp_path / "elsewhere", tmp_path / "photos")
    (tmp_path / "new/red").mkdir(parents=True)
    Image.new("RGB", (9, 5), "red").save(tmp_path / "new/red/0.png")
    (tmp_path / "new/blue").mkdir()
    Image.new("RGB", (9, 5), "blue").save(tmp_path / "new/blue/0.png")
    with pytest.raises(ValueError, match=r"data\.fold would be ignored"):
        measured(tmp_path / "new", "+data.fold=1")
    assert measured(tmp_path / "new")["accuracy/test"] in (0, 0.5, 1), "both of them, no class or split is missed"
    assert "samples are left out" not in caplog.text
    with pytest.raises(ValueError, match="there is no val split in the data: type split=test"):
        measured(tmp_path / "new", "split=val")

    rows = csv.DictReader((run / "samples.csv").read_text().splitlines())
    (tmp_path / "photos" / next(row["sample"] for row in rows if row["split"] == "val")).unlink()
    with pytest.raises(ValueError, match="1 samples of the run are gone"):  # its own data, and not whole
        measured(tmp_path / "photos", "+data.batch_size=4")
    shutil.move(tmp_path / "photos", tmp_path / "renamed")
    for file in (tmp_path / "renamed").glob("*/*.png"):
        file.rename(file.with_stem(f"renamed {file.stem}"))
    trained_on = json.loads((run / "metrics.json").read_text())["metrics"]
    found = measured(tmp_path / "renamed", "+data.balance=loss")  # which has nothing to take weights from
    assert found == pytest.approx({name: trained_on[name] for name in found}, abs=1e-6)
    assert "19 samples are left out: the run was trained on them" in caplog.text


def test_images_are_prepared_as_in_training_whatever_the_library_says_now(
    config: Config, run: Path, tmp_path: Path
) -> None:
    before, _ = predicted(config, run, tmp_path / "elsewhere")
    spec = json.loads((run / "input_spec.json").read_text())
    (run / "input_spec.json").write_text(json.dumps({**spec, "mean": [5.0] * len(spec["mean"])}))
    list_in_manifest(run / "input_spec.json")
    after, _ = predicted(config, run, tmp_path / "elsewhere")
    assert [row["confidence"] for row in after] != [row["confidence"] for row in before]


def test_a_file_a_glob_and_a_table(config: Config, run: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    assert len(predicted(config, run, root / "red/3.png")[0]) == 1
    assert len(predicted(config, run, f"{root}/*/[12].png")[0]) == 6
    assert [row["path"] for row in predicted(config, run, root / "labels.csv")[0]][:1] == [str(root / "blue/0.png")]


@pytest.mark.parametrize("path", ["../elsewhere/red/1.png", "{tmp}/elsewhere/red/1.png"])
def test_a_table_names_images_below_its_root_only(config: Config, run: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists/new.csv"
    table.write_text(f"path\n{path.format(tmp=tmp_path)}\n")
    with pytest.raises(UserError, match=r"new.csv, line 2: the path .*1.png leaves .*lists: .* with root=<folder>"):
        predicted(config, run, table)
    if not path.startswith(".."):
        assert len(predicted(config, run, table, f"root={tmp_path}")[0]) == 1


def test_folders_are_gone_through_as_in_training(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    (folder / ".git").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "linked").symlink_to(tmp_path / "elsewhere/red")
    rows, _ = predicted(config, run, folder)
    assert [Path(row["path"]).relative_to(folder).parts[0] for row in rows] == ["linked"] * 8
    assert "2 others were not used" in (shown := capsys.readouterr().out)
    assert "notes.txt (not an image by its name)" in shown


def test_bad_files_are_skipped_and_listed(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    good, bad = odd_images(folder), bad_files(folder)
    rows, _ = predicted(config, run, folder, "batch_size=3")
    assert {row["path"] for row in rows} == {str(file) for file in good}
    shown = capsys.readouterr().out
    assert f"skipped, {len(bad)} of {len(good) + len(bad)}:" in shown
    assert all(f"{file}: " in shown for file in bad)
    only_bad = tmp_path / "bad"
    bad_files(only_bad)
    with pytest.raises(ValueError, match=r"none of the .* can be used"):
        predicted(config, run, only_bad)
    assert list(run.glob("predictions_bad*.csv")) == []


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("input={tmp}/nothing", "nothing does not exist: name an image"),
        ("device=gpu3", "device=gpu3 cannot be used here"),
        ("run={tmp}/none", "none does not exist"),
    ],
)
def test_wrong_inputs_are_met_with_what_to_type(
    config: Config, run: Path, tmp_path: Path, choice: str, said: str
) -> None:
    choices = [f"run={run}", f"input={tmp_path}/elsewhere", choice.format(tmp=tmp_path)]
    with pytest.raises(ValueError, match=said):
        predict(config(*choices, name="predict"))
