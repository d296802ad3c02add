"""What a run shows in its loggers, read back by each logger's own reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.conftest import TINY
from thaw.reporting.callback import histogram, update_ratio
from thaw.runs.wandb import read_records
from thaw.train import train

Config = Callable[..., DictConfig]

SHOWN = [word for word in TINY if word not in ("~callbacks.pictures", "~callbacks.speed")]
SHORT = ("freezing.probe_epochs=1", "freezing.epochs=3", "data.augment=light")
KINDS = ("images", "histograms", "scalars", "tensors")
SPLITS = {"confusion", "precision_recall", "reliability", "predictions", "mistakes"}


def names(split: str) -> set[str]:
    return {f"{name}/{split}" for name in SPLITS}


def confident(probabilities: Any) -> Figure:
    """A picture of a user's own."""
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().hist(np.max(probabilities, axis=1))
    return figure


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(
        str(run / "tensorboard"), {"images": 0, "histograms": 0, "scalars": 0, "tensors": 0}
    ).Reload()


def test_tensorboard_shows_phases_and_the_end_also_after_a_resume(config: Config, tmp_path: Path) -> None:
    own = "+task.pictures.own={_target_: tests.reporting.test_callback.confident, _partial_: true}"
    train(config(*SHOWN, *SHORT, "logger=tensorboard", "callbacks.checkpoint.save_top_k=-1", own))
    run = tmp_path / "run"
    first = events(run)
    tags = first.Tags()
    (phase, end) = (first.Scalars("plan/phase")[0].step, first.Scalars("plan/phase")[-1].step)
    steps = {name: [image.step for image in first.Images(name)] for name in tags["images"]}
    shown = {name: [phase] if name.endswith("val") else [end] for split in ("val", "test") for name in names(split)}
    assert steps == {**shown, "own/val": [phase], "own/test": [end], "inputs/train": [0]}
    stages = ("stem", "layer1", "layer2", "head")
    assert {name: [h.step for h in first.Histograms(name)] for name in tags["histograms"]} == {
        **{f"weights/{stage}": [0, end] for stage in stages[:3]},
        "weights/head": [0, phase, end],
        **{f"gradients/{stage}": [end] for stage in stages[:3]},
        "gradients/head": [phase, end],
    }
    assert [point.step for point in first.Scalars("update_ratio/head")] == [phase, end]
    assert all(0 < point.value < 1 for point in first.Scalars("update_ratio/stem"))
    assert {"data/report/text_summary", "network/stages/text_summary", "configuration/run/text_summary"} < set(
        tags["tensors"]
    )
    graph = first.Graph()
    assert {node.name.partition("/")[0] for node in graph.node} == {"input", *stages, "logits"}
    assert all(source in {node.name for node in graph.node} for node in graph.node for source in node.input)
    final = first.Scalars("final/accuracy/test")
    assert [point.value for point in final] == [point.value for point in first.Scalars("accuracy/test")]

    train(config(f"resume={run}/checkpoints/best-phase1-epoch000.ckpt"))  # the end of the first phase
    again = events(run)
    assert {name: [image.step for image in again.Images(name)] for name in again.Tags()["images"]} == steps
    assert [point.step for point in again.Scalars("speed/cached")] == [p.step for p in first.Scalars("speed/cached")]
    assert [point.value for point in again.Scalars("speed/cached")] == [1, 0, 0]


def test_without_a_logger_that_holds_pictures_they_are_files(config: Config, tmp_path: Path) -> None:
    train(config(*SHOWN, *SHORT, "data.test_fraction=0", "callbacks.pictures.every_epochs=2"))
    folder = tmp_path / "run/pictures"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    (phase, second, end) = sorted({int(name[-10:-4]) for name in files if name.startswith("confusion/val")})
    assert {f"{name}_{step:06}.png" for name in names("val") for step in (phase, second, end)} < files
    assert {"inputs/train_000000.png", f"histograms/weights_{end:06}.png", "network/stages.txt"} < files
    assert all((folder / name).stat().st_size for name in files)


def test_texts_are_tables(config: Config, tmp_path: Path) -> None:
    source = ["data=shared/texts", "+data._target_=tests.data.test_source.PlainTexts", "backbone=gru"]
    quiet = [word for word in SHOWN if "backbone" not in word and "optimizer" not in word and "labels" not in word]
    train(config(*quiet, *source, *SHORT[:2], "logger=tensorboard"))
    shown = events(tmp_path / "run")
    (table,) = shown.Tensors("predictions/test/text_summary")
    assert table.tensor_proto.string_val[0].decode().startswith("| text | true | predicted | confidence |")
    assert "inputs/train" not in shown.Tags()["images"]


@pytest.mark.run
def test_wandb_gets_its_own_kinds(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    train(config(*SHOWN, *SHORT, "logger=wandb", "logger.wandb.offline=true"))
    (file,) = (tmp_path / "run").rglob("*.wandb")
    records = list(read_records(file))
    histories = [record.history.item for record in records if record.HasField("history")]
    rows = [{"/".join(item.nested_key): item.value_json for item in items} for items in histories]
    kinds = {name: value for row in rows for name, value in row.items() if name.endswith("/_type")}
    assert kinds["confusion/val/_type"] == '"image-file"'
    assert kinds["weights/head/_type"] == '"histogram"'
    assert kinds["data/report/_type"] == '"html-file"'
    with_metrics = [row for row in rows if "accuracy/test" in row]
    assert len(with_metrics) == 1
    assert "confusion/test/_type" in with_metrics[0], "pictures have no rows of their own"
    summary = {
        "/".join(item.nested_key) or item.key: item.value_json
        for r in records
        if r.HasField("summary")
        for item in r.summary.update
    }
    assert float(summary["accuracy/test"]) == float(with_metrics[0]["accuracy/test"])


def test_mlflow_gets_artifacts(config: Config, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    address = f"sqlite:///{tmp_path}/mlflow.db"
    train(config(*SHOWN, *SHORT, "logger=mlflow", f"logger.mlflow.tracking_uri={address}"))
    client = tracking.MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("thaw").experiment_id])
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "pictures/confusion")}
    assert {path.rpartition("_")[0] for path in artifacts} == {
        f"pictures/confusion/{split}" for split in ("val", "test")
    }
    assert run.data.metrics["final/accuracy/test"] == run.data.metrics["accuracy/test"]


@pytest.mark.run
def test_what_cannot_be_drawn_ends_no_run(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "+task.pictures.own={_target_: tests.reporting.test_callback.broken, _partial_: true}"
    assert "accuracy/test" in train(config(*SHOWN, *SHORT, wrong))
    assert "on_test_epoch_end failed; the run goes on" in caplog.text
    assert "cannot be drawn" in caplog.text


def broken(class_names: Any) -> Figure:
    """Cannot draw."""
    raise ValueError("cannot be drawn")


def test_numbers_of_weights() -> None:
    parameters = [nn.Parameter(torch.full((2, 2), 1.1)), nn.Parameter(torch.full((2,), 1.1))]
    assert float(update_ratio([torch.ones(2, 2), torch.ones(2)], parameters)) == pytest.approx(0.1)
    counts, edges = histogram([*parameters, torch.full((3,), torch.nan)])
    assert counts.sum() == 6, "numbers that are not finite are left out"
    assert edges[0] <= 1.1 <= edges[-1]
