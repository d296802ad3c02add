"""Samples with any number of labels, and with numbers, through every command: images in a table, and texts."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from tests.conftest import TINY
from tests.language import pretrained
from tests.test_runs import REPOSITORY, typed
from thaw.config.assemble import assemble, run_with_weights
from thaw.config.recorded import read_config
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.models.weights import read_checkpoint, read_weights
from thaw.predict import predict
from thaw.runs.outputs import read_outputs
from thaw.soup import soup
from thaw.train import train

Config = Callable[..., DictConfig]
QUIET = [choice for choice in TINY if not choice.startswith("data")]
TASKS = {
    "multi_label": ("task=multi_label", "data.label_column=[bright,wide]"),
    "regression": ("task=regression", "data.label_column=[light,width]"),
}
SHORT = ("freezing.epochs=3", "freezing.probe_epochs=1", "callbacks.checkpoint.save_top_k=-1", "data.num_workers=0")


def table(folder: Path) -> str:
    """60 images of bars of some width and brightness."""
    rng = np.random.default_rng(0)
    (folder / "bars").mkdir()
    rows = ["path,bright,wide,light,width,words"]
    for number, (light, width) in enumerate(rng.integers((60, 1), (256, 8), size=(60, 2)).tolist()):
        pixels = np.zeros((8, 8), dtype=np.uint8)
        pixels[:, :width] = light
        Image.fromarray(pixels).save(folder / "bars" / f"{number}.png")
        words = "great film " * width
        rows.append(f"bars/{number}.png,{light > 150:d},{width > 3:d},{light},{width},{words}{number}")
    (folder / "bars.csv").write_text("\n".join(rows))
    return f"data.table={folder / 'bars.csv'}"


@pytest.fixture(params=TASKS)
def run(request: pytest.FixtureRequest, config: Config, tmp_path: Path) -> Path:
    """A finished run."""
    train(config("data=image_table", table(tmp_path), *QUIET, *SHORT, *TASKS[request.param]))
    return tmp_path / "run"


def expected_of(run: Path) -> tuple[list[str], np.ndarray[Any, Any], list[int]]:
    """Names, predictions of the network for the test split, and the indices of its samples."""
    parts = assemble(read_config(run), run_with_weights(str(run)))
    batches = list(parts.samples.test_dataloader())
    with torch.inference_mode():
        inputs = [parts.samples.on_after_batch_transfer(batch, 0).inputs for batch in batches]
        found = [parts.module.task.predictions(parts.network(one)) for one in inputs]
    indices = [int(index) for batch in batches for index in batch.index]
    return parts.module.class_names, torch.cat(found).numpy(), indices


def test_a_run_is_measured_again_and_predicts_what_it_measured(config: Config, run: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    for split in ("val", "test"):
        again = evaluate(config(f"run={run}", f"split={split}", "report=false", name="evaluate"))
        assert again == {name: value for name, value in metrics.items() if name.endswith(f"/{split}")}
    with pytest.raises(UserError, match=r"calibrate=true is for one class a sample, not for \w+: leave it out"):
        predict(config(f"run={run}", f"input={tmp_path}/bars.csv", "calibrate=true", name="predict"))
    names, expected, indices = expected_of(run)
    file = predict(config(f"run={run}", f"input={tmp_path}/bars.csv", name="predict"))
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    said = [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]
    outputs = read_outputs(run / "outputs_test.npz")
    assert outputs is not None
    assert outputs.indices.tolist() == sorted(indices)
    for index, values in zip(indices, expected, strict=True):
        by_name = said[index].get("probabilities", said[index].get("values"))
        assert [by_name[name] for name in names] == pytest.approx(values.tolist(), abs=1e-4, rel=1e-5)
        if "labels" in said[index]:
            thresholds = json.loads((run / "calibration.json").read_text())["thresholds"]
            chosen = [name for name, value, t in zip(names, values, thresholds, strict=True) if value >= t]
            assert said[index]["labels"] == chosen
            assert rows[index]["labels"] == "|".join(chosen)
        else:
            assert [float(rows[index][name]) for name in names] == pytest.approx(values.tolist(), rel=1e-5)
            assert outputs.logits[outputs.indices.tolist().index(index)] == pytest.approx(values, rel=1e-5)


@pytest.mark.run
@pytest.mark.parametrize("name", TASKS)
def test_weights_are_averaged(config: Config, tmp_path: Path, name: str) -> None:
    same = ("data=image_table", table(tmp_path), *QUIET, *SHORT, *TASKS[name], "data.seed=0")
    monitor = ("monitor.metric=macro_f1/val",) if name == "multi_label" else ()  # which depends on thresholds
    runs = [train(config(*same, *monitor, f"seed={n}", f"run_folder={tmp_path}/sweep/{n}")) for n in range(2)]
    folder = soup(config(f"folder={tmp_path}/sweep", "report=false", name="soup"))
    tried = json.loads((folder / "soup.json").read_text())
    assert tried["weights"][0]["metric"] in [pytest.approx(run[tried["monitor"]]) for run in runs]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    again = evaluate(config(f"run={folder}", "report=false", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}


def test_a_resumed_run_ends_with_the_same_bits(config: Config, run: Path) -> None:
    files = ("weights.safetensors", "module.safetensors")
    whole = [read_weights(run / name) for name in files]
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    last = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    torch.manual_seed(99)
    first = next((run / "checkpoints").glob("best-*epoch000.ckpt"))
    assert train(config(f"resume={first}")) == metrics
    for name, tensors in zip(files, whole, strict=True):
        again = read_weights(run / name)
        assert all(torch.equal(tensor, again[key]) for key, tensor in tensors.items())
    assert all(torch.equal(t, last[n]) for n, t in read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"].items())


@pytest.mark.parametrize("form", ["onnx", pytest.param("exported_program", marks=pytest.mark.run)])
def test_exports_give_what_predictions_do(config: Config, run: Path, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = export(config(f"run={run}", f"format={form}", "samples=8", name="export"))  # which compares it
    card = (file.parent / "model_card.md").read_text()
    assert ("labels images" if "bright" in card else "estimates light, width of images") in card
    assert "| all | 42 | 9 | 9 |" in card or "| (no label) |" in card


@pytest.mark.run
def test_frozen_work_is_kept_and_changes_nothing(config: Config, tmp_path: Path) -> None:
    place = table(tmp_path)
    for kind, choices in TASKS.items():
        metrics = [
            train(config("data=image_table", place, *QUIET, *SHORT, *choices, f"caching={caching}", f"run_folder={f}"))
            for caching, f in (("on", tmp_path / f"{kind}_on"), ("off", tmp_path / f"{kind}_off"))
        ]
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-4), kind


@pytest.mark.run
@pytest.mark.parametrize("kind", TASKS)
def test_two_processes_measure_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Thresholds, means and metrics are those of all samples."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]))
    place, tiny = table(tmp_path), [choice for choice in QUIET if not choice.startswith("backbone")]
    network = ("backbone._target_=tests.tiny.smooth", "backbone.weights=null", "data.global_batch_size=32")
    for devices in (1, 2):
        typed(
            *(tmp_path, "-m", "thaw.train", "data=image_table", place, *tiny, *SHORT, *TASKS[kind], *network),
            *(f"trainer.devices={devices}", f"run_folder={devices}"),
        )
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text())["metrics"] for name in "12")
    assert one.keys() == two.keys()
    assert two == pytest.approx(one, rel=1e-3)
    one, two = (
        {key: value.tolist() for key, value in read_weights(tmp_path / name / "module.safetensors").items()}
        for name in "12"
    )
    assert two == {key: pytest.approx(value, rel=1e-3) for key, value in one.items()}


@pytest.mark.run
@pytest.mark.parametrize("kind", TASKS)
def test_texts(config: Config, tmp_path: Path, kind: str) -> None:
    network = ("backbone=huggingface", f"backbone.name={pretrained(tmp_path / 'bert')}", "optimizer.lr=1e-2")
    label = TASKS[kind][1].replace("label_column", "label")
    tiny = [choice for choice in QUIET if not choice.startswith("backbone")]
    typed = ("data=text_table", table(tmp_path), "data.text=words", TASKS[kind][0], label, *network)
    train(config(*typed, *tiny, "freezing.epochs=2", "freezing.probe_epochs=1"))
    file = export(config(f"run={tmp_path / 'run'}", "format=huggingface", "samples=8", name="export"))
    settings = json.loads((file.parent / "config.json").read_text())
    assert settings["problem_type"] == {"multi_label": "multi_label_classification"}.get(kind, kind)


def test_what_does_not_fit_a_task_is_said(config: Config, tmp_path: Path) -> None:
    def begun(*typed: str) -> Tensor:
        parts = assemble(config("data=image_table", place, *QUIET, *typed))
        return parts.module.task.state_dict()

    place = table(tmp_path)
    assert begun(*TASKS["regression"])["mean"].shape == (2,)
    with pytest.raises(UserError, match="mixing mixes samples of one class each: type mixing=none"):
        begun(*TASKS["regression"], "mixing=mixup")
    with pytest.raises(UserError, match=r"data.balance=loss weighs classes, and these labels are numbers"):
        begun(*TASKS["regression"], "data.balance=loss")
    with pytest.raises(UserError, match=r"loss fails on outputs \(2, 2\) and targets 0 or 1 \(2, 2\)"):
        begun(*TASKS["multi_label"], "loss._target_=torch.nn.functional.multi_margin_loss")
    assert begun(*TASKS["multi_label"], "data.balance=sampler")
