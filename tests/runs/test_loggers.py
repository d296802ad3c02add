"""What was logged, read back by each logger's own reader."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from tests.conftest import TINY
from tests.killing import killed
from thaw.runs.files import read_rows
from thaw.runs.loggers import MetricsCSV
from thaw.runs.wandb import read_records
from thaw.train import train

Config = Callable[..., DictConfig]

SHORT = ("freezing.probe_epochs=1", "freezing.epochs=3", "trainer.log_every_n_steps=1")
METRICS = {f"{name}/{split}" for name in ("loss", "accuracy", "macro_f1") for split in ("train", "val", "test")}


@pytest.fixture(autouse=True)
def files_of_tensorboard_are_counted_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has several files, which are read in the order of their names: of one second, number 10 before number 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def test_csv_and_tensorboard_hold_every_metric_once_an_epoch_also_after_a_resume(
    config: Config, tmp_path: Path
) -> None:
    train(config(*TINY, *SHORT, "logger=tensorboard", "callbacks.checkpoint.save_top_k=-1"))
    run = tmp_path / "run"
    first = tensorboard_steps(run)
    train(config(f"resume={run}/checkpoints/best-phase2-epoch001.ckpt"))
    assert tensorboard_steps(run) == first
    assert {name: len(steps) for name, steps in first.items() if name in METRICS} == {
        name: 1 if name.endswith("/test") else 3 for name in METRICS
    }
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in METRICS:
        steps = [int(row["step"]) for row in rows if row[name]]
        assert steps == first[name]


def tensorboard_values(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By name, step and value."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def tensorboard_steps(run: Path) -> dict[str, list[int]]:
    return {name: [step for step, _ in values] for name, values in tensorboard_values(run).items()}


def test_the_configuration_goes_to_tensorboard(config: Config, tmp_path: Path) -> None:
    train(config(*TINY, *SHORT, "logger=tensorboard", "optimizer.lr=0.00123"))
    hparams = (tmp_path / "run/tensorboard/hparams.yaml").read_text()
    assert "lr: 0.00123" in hparams


def test_wandb_writes_its_offline_file_without_a_key(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    train(config(*TINY, *SHORT, "logger=[tensorboard,wandb]", "run_id=abc123"))
    import wandb

    assert wandb.run is None, "the next trial of a sweep gets its own"
    wandb.teardown()  # waits for its service, which writes the file in its own time
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/run-abc123.wandb")
    logged: set[str] = set()
    configuration: dict[str, str] = {}
    for record in read_records(file):
        logged |= {item.key or "/".join(item.nested_key) for item in record.history.item}
        for update in (record.run.config.update, record.config.update):
            configuration |= {item.key or "/".join(item.nested_key): item.value_json for item in update}
    assert logged >= METRICS
    assert json.loads(configuration["optimizer"])["lr"] == pytest.approx(3e-3)


@pytest.mark.run
def test_wandb_has_every_row_once_after_a_kill(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    run, often = tmp_path / "run", "callbacks.checkpoint.every_minutes=0"
    with killed(1, 2):
        train(config(*TINY, *SHORT, often, "logger=wandb", "run_id=abc123"))
    wandb.teardown()
    (first,) = (run / "wandb").glob("offline-run-*/run-abc123.wandb")
    # W&B's own process may be killed, too, and then lacks the last rows.
    first.write_bytes(first.read_bytes()[: -len(first.read_bytes()) // 4])
    train(config(f"resume={run}"))
    wandb.teardown()
    sent = [
        (
            record.history.step.num,
            {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item},
        )
        for file in sorted((run / "wandb").glob("offline-run-*/run-abc123.wandb"), key=lambda file: file != first)
        for record in read_records(file)
        if record.HasField("history")
    ]
    rows = read_rows(run / "metrics.csv")
    assert [number for number, _ in sent] == list(range(len(rows)))
    for row, (_, values) in zip(rows, sent, strict=True):
        assert int(row.pop("step")) == int(values["trainer/global_step"])
        for name, value in row.items():
            assert not value or float(value) == pytest.approx(float(values[name]))


def test_mlflow_gets_the_metrics_and_a_resumed_run_stays_one_run(config: Config, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    train(config(*TINY, *SHORT, "logger=mlflow", f"logger.mlflow.tracking_uri={uri}"))
    train(config(f"resume={tmp_path / 'run'}"))
    client = tracking.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("thaw").experiment_id])
    assert run.data.metrics.keys() >= METRICS
    assert run.data.params["optimizer/lr"] == "0.003"


def test_the_csv_grows_by_new_columns_and_drops_what_a_resume_will_write_again(tmp_path: Path) -> None:
    first = MetricsCSV(tmp_path)
    first.log_metrics({"a": 1.0}, step=0)
    first.log_metrics({"a": 2.0, "b": 3.0}, step=1)
    again = MetricsCSV(tmp_path, first_step=1)
    again.log_metrics({"c": 4.0}, step=1)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert rows == [{"a": "1.0", "step": "0"}, {"c": "4.0", "step": "1"}]
