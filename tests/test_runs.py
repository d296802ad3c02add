"""Whole commands in processes of their own, as a user types them."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.photos import photos
from thaw.caching.entry import CacheEntry

pytestmark = pytest.mark.run

REPOSITORY = Path(__file__).parents[1]


def typed(folder: Path, *words: str, code: int = 0) -> str:
    """What `python -m ...` prints in `folder`; its standard error where it is meant to fail."""
    environment = {**os.environ, "COLUMNS": "120", "PYTHONWARNINGS": "default"}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def test_the_default_run_is_good_and_evaluates_resumes_predicts_and_exports(tmp_path: Path) -> None:
    printed = typed(tmp_path, "-m", "thaw.train", "run_folder=run")
    assert "again: python -m thaw.evaluate" in printed
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert metrics["accuracy/test"] >= 0.97

    typed(tmp_path, "-m", "thaw.evaluate", "run=run")
    again = json.loads((run / "evaluate_test.json").read_text())
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    assert "split is test or val, not nowhere" in typed(
        tmp_path, "-m", "thaw.evaluate", "run=run", "split=nowhere", code=1
    )
    assert "absent does not exist" in typed(tmp_path, "-m", "thaw.evaluate", "run=absent", code=1)

    weights = (run / "weights.safetensors").read_bytes()
    (last_but_one,) = (run / "checkpoints").glob("best-*.ckpt")
    typed(tmp_path, "-m", "thaw.train", f"resume={last_but_one}", "trainer.log_every_n_steps=5")
    assert (run / "weights.safetensors").read_bytes() == weights

    pictures = photos(tmp_path)
    typed(tmp_path, "-m", "thaw.predict", "run=run", f"input={pictures}/red", "output=out/red")
    with (tmp_path / "out/red.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    assert "does not exist" in typed(tmp_path, "-m", "thaw.predict", "run=run", "input=nowhere", code=1)
    printed = typed(tmp_path, "-m", "thaw.export", "run=run", "format=exported_program")
    assert "64 images: same results" in printed


def test_photographs_are_checked_trained_on_and_exported_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    root = photos(tmp_path)
    choice = ("data=image_folder", f"data.root={root}")
    assert "3 classes" in typed(tmp_path, "-m", "thaw.check", *choice)
    (root / "red/broken.jpg").write_bytes(b"")
    assert "red/broken.jpg: empty" in typed(tmp_path, "-m", "thaw.check", *choice, code=1)
    assert "1 left out" in typed(tmp_path, "-m", "thaw.check", *choice, "data.on_bad=leave_out")
    assert "data" in typed(tmp_path, "-m", "thaw.check", code=1)
    network = ("backbone=torchvision", "backbone.name=mobilenet_v3_small", "backbone.image_size_px=32")
    assert "features11" in typed(tmp_path, "-m", "thaw.stages", *network[:2])
    short = ("freezing.probe_epochs=1", "freezing.epochs=2", "run_folder=run", "logger=none")
    typed(tmp_path, "-m", "thaw.train", *choice, "data.on_bad=leave_out", *network, "backbone.weights=none", *short)
    assert "red/broken.jpg: empty" in (tmp_path / "run/data.txt").read_text()
    changed = "+data.on_bad=leave_out"
    typed(tmp_path, "-m", "thaw.export", "run=run", "format=onnx", "output=away", changed)
    # What was exported is enough: thaw is nowhere near.
    alone = "import sys; sys.modules['thaw'] = None; import run_onnx; run_onnx.main(*sys.argv[1:])"
    lines = typed(tmp_path / "away", "-c", alone, "model.onnx", f"{root}/red/0.png", f"{root}/blue/1.png")
    typed(tmp_path, "-m", "thaw.predict", "run=run", f"input={root}", "output=all")
    with (tmp_path / "all.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for line in map(json.loads, lines.splitlines()):
        for name, probability in line["probabilities"].items():
            assert float(rows[line["path"]][f"p({name})"]) == pytest.approx(probability, abs=1e-5)


def test_a_run_whose_output_nobody_reads_any_more_goes_on_to_its_end(tmp_path: Path) -> None:
    short = ("data.labels_per_class=20", "freezing=full", "freezing.epochs=1", "logger=none", "run_folder=run")
    command = [sys.executable, "-m", "thaw.train", *short]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        printed = run.stderr.read()
    assert run.returncode == 0
    assert not any(word in printed for word in ("Traceback", "Broken pipe", "BrokenPipe"))
    assert "again: python -m thaw.evaluate" in (tmp_path / "run/train.log").read_text()


def test_two_processes_train_with_the_default_progress_bar(tmp_path: Path) -> None:
    short = ("data.labels_per_class=20", "freezing=full", "freezing.epochs=1", "logger=none", "run_folder=run")
    typed(tmp_path, "-m", "thaw.train", *short, "trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp")
    assert (tmp_path / "run/metrics.json").is_file()


def test_two_processes_decode_as_one_does(tmp_path: Path, cache_folder: Path) -> None:
    data = (
        "data=image_folder",
        f"data.root={photos(tmp_path, size=(90, 70))}",
        "data.decoded=on",
        "data.num_workers=1",
    )
    network = ("backbone=torchvision", "backbone.name=mobilenet_v3_small", "backbone.image_size_px=32")
    short = ("backbone.weights=none", "freezing=full", "freezing.epochs=1", "logger=none", "trainer.accelerator=cpu")
    found = []
    for processes in (1, 2):
        devices = (f"trainer.devices={processes}", "+trainer.strategy=ddp", f"run_folder=run{processes}")
        typed(tmp_path, "-m", "thaw.train", *data, *network, *short, *devices)
        entries = sorted(cache_folder.glob("decoded-*.arrays"))
        assert len(entries) == 3
        found.append({entry.name: CacheEntry.open(entry).arrays for entry in entries})
        for entry in entries:
            shutil.rmtree(entry)
    one, two = found
    assert one.keys() == two.keys()
    for name, arrays in one.items():
        assert all(torch.equal(array, two[name][kind]) for kind, array in arrays.items())


def test_two_processes_compute_what_is_frozen_together(tmp_path: Path) -> None:
    same = ("data.labels_per_class=20", "freezing=gradual", "freezing.epochs_per_stage=1", "logger=none")
    same += ("callbacks.speed=null",)  # which differs from run to run
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp")
    typed(tmp_path, "-m", "thaw.train", *same, *two, "run_folder=with")
    kept = sorted((tmp_path / "cache").glob("*.arrays"))
    assert len(kept) == 2 * 5  # of train and val, behind each stage
    typed(tmp_path, "-m", "thaw.train", *same, *two, "caching=off", "run_folder=without")
    assert (tmp_path / "with/metrics.csv").read_text() == (tmp_path / "without/metrics.csv").read_text()
    typed(tmp_path, "-m", "thaw.train", *same, "trainer.accelerator=cpu", "run_folder=alone")
    assert {file.name for file in kept} <= {file.name for file in (tmp_path / "cache").glob("*.arrays")}


def test_the_step_that_a_run_failed_in_is_run_again(tmp_path: Path) -> None:
    short = ("data.labels_per_class=20", "logger=none", "run_folder=run", "trainer.accelerator=cpu")
    ranks = ("trainer.devices=2", "+trainer.strategy=ddp")
    failed = typed(tmp_path, "-m", "thaw.train", *short, *ranks, "mixing=mixup", "optimizer.lr=1e38", code=1)
    assert "the loss is nan in epoch 0, train batch 1 " in failed
    (tmp_path / "run").rename(tmp_path / "moved")
    for rank in ((), ("rank=1",)):
        printed = typed(tmp_path, "-m", "thaw.replay", "run=moved", *rank)
        assert "\nreproduced: " in printed
        assert "largest weight" in printed
    tensors = torch.load(tmp_path / "moved/crash/crash.pt", weights_only=True)
    tensors["tensors"] = {name: torch.zeros_like(tensor) for name, tensor in tensors["tensors"].items()}
    torch.save(tensors, tmp_path / "moved/crash/crash.pt")
    assert "crash.pt is damaged: " in typed(tmp_path, "-m", "thaw.replay", "run=moved", "rank=0", code=1)
    (tmp_path / "moved/crash/manifest.json").unlink()
    assert "error: not reproduced: " in typed(tmp_path, "-m", "thaw.replay", "run=moved", "rank=0", code=1)
    assert "has no crash kit of rank 2" in typed(tmp_path, "-m", "thaw.replay", "run=moved", "rank=2", code=1)


def test_runs_killed_at_awkward_moments_end_as_if_left_alone(tmp_path: Path) -> None:
    torture = str(REPOSITORY / "scripts/torture.py")
    assert "| all | " in (printed := typed(tmp_path, torture, "--runs", "3", "--writes", "6"))
    assert printed.count("3 of 3") == 1
    assert printed.count("2 of 2 |") >= 3
    typed(tmp_path, torture, "--runs", "3", "--mutate", code=1)


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_say_what_they_take(script: Path, tmp_path: Path) -> None:
    if "argparse" in script.read_text():
        assert "usage" in typed(tmp_path, str(script), "--help")
    else:
        code = f"import runpy, sys; sys.path.insert(0, {str(script.parent)!r}); runpy.run_path({str(script)!r})"
        typed(tmp_path, "-c", code)


def test_a_cell_of_the_study_of_the_recipe_is_run_once(tmp_path: Path) -> None:
    script = str(REPOSITORY / "scripts/recipe.py")
    few = ["--sets", "digits_1", "--columns", "default", "hand", "--epochs", "1", "1", "--seeds", "1", "--jobs", "1"]
    assert "hand, seed 0: 0." in typed(tmp_path, script, "--assets", ".", *few)
    assert "2 of 2 cells" in typed(tmp_path, script, "--assets", ".", *few)
    assert "| default | 0." in (table := typed(tmp_path, script, "--table"))
    assert table.count("| 1 |\n") == 2
