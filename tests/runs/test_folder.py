"""What a run folder says of its run."""

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY, watched
from tests.killing import killed
from thaw import storage
from thaw.config.conf_folder import CONF
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.manifest import read_manifest
from thaw.report import report
from thaw.reporting.collect import measured_by
from thaw.runs.folder import RunFolder
from thaw.tasks.single_label import SingleLabel
from thaw.train import train

Config = Callable[..., DictConfig]

FIRST_EPOCH_IS_BEST = ("freezing=full", "freezing.epochs=3", "monitor.metric=plan/phase", "monitor.mode=max")
"""The monitored value is the same in all epochs, so that no epoch is better than the first."""


@pytest.mark.parametrize("test_fraction", [0, 0.15])
def test_final_metrics_are_those_of_the_best_epoch(config: Config, tmp_path: Path, test_fraction: float) -> None:
    choices = (*TINY, *NOISE, *FIRST_EPOCH_IS_BEST, "refit=off", f"data.test_fraction={test_fraction}")
    metrics = train(config(*choices))
    results = json.loads((tmp_path / "run/metrics.json").read_text())
    assert results["metrics"] == metrics
    assert results["epoch"] == 0
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/val"] or row["loss/train"]]
    best = {name: value for row in rows if row["epoch"] == "0" for name, value in row.items() if value}
    names = [name for name in best if name.endswith(("/train", "/val"))]
    assert len(names) == 12
    assert {name: metrics[name] for name in names} == {name: pytest.approx(float(best[name])) for name in names}
    assert metrics["loss/val"] != pytest.approx(float([row["loss/val"] for row in rows if row["loss/val"]][-1]))
    assert ("loss/test" in metrics) == (test_fraction > 0)
    assert not [name for name in metrics if name.startswith("lr-")]


def test_checkpoints_may_lie_outside_the_run_folder(config: Config, tmp_path: Path) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    choices = (*TINY, *NOISE, *FIRST_EPOCH_IS_BEST, f"+callbacks.checkpoint.dirpath={elsewhere}")
    with killed(2, 0):
        train(config(*choices))
    with pytest.raises(ValueError, match="holds a run already"):
        train(config(*choices))
    with pytest.raises(ValueError, match=r"dirpath=.*elsewhere lies outside of the run folder.* trust=true"):
        train(config(f"resume={run}"))
    train(config(f"resume={run}", "trust=true"))
    results = json.loads((run / "metrics.json").read_text())
    assert results["best_checkpoint"] == str(elsewhere / "best-phase1-epoch000.ckpt")
    assert (run / "weights.safetensors").is_file()
    assert torch.load(elsewhere / "last.ckpt", weights_only=True)["epoch"] == 2
    assert not (elsewhere / "previous.ckpt").exists()
    assert not (run / "checkpoints").exists()


@pytest.mark.run
@pytest.mark.parametrize("resumed", [False, True])
def test_what_another_start_trained_while_this_one_waited_is_not_overwritten(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    run, choices = tmp_path / "run", (*TINY, *NOISE, *FIRST_EPOCH_IS_BEST)
    if resumed:
        with killed(1, 0):
            train(config(*choices))
        choices = (f"resume={run}",)
    hold = RunFolder._hold

    def wait(waiting: RunFolder) -> None:
        monkeypatch.setattr(RunFolder, "_hold", hold)
        train(config(*choices, *([] if resumed else ["seed=1"])))
        hold(waiting)

    monkeypatch.setattr(RunFolder, "_hold", wait)
    with pytest.raises(
        UserError, match=f"another process has trained in {run} since .* resume={run} continues its run"
    ):
        train(config(*choices))
    files = {name: (run / name).read_text() for name in ("config.yaml", "metrics.json", "metrics.csv")}
    assert f"seed: {0 if resumed else 1}" in files["config.yaml"]
    assert len(files["metrics.csv"].splitlines()) == 8
    assert not RunFolder(run).in_use
    train(config(f"resume={run}"))
    assert (run / "metrics.csv").read_text() == files["metrics.csv"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has finished, to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", [f"run_folder={folder}", *TINY, *NOISE, *FIRST_EPOCH_IS_BEST]))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_at_a_row(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-1])


def changed(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def measure(config: Config, run: Path) -> None:
    evaluate(config(f"run={run}", "report=false", name="evaluate"))


def resume(config: Config, run: Path) -> None:
    train(config(f"resume={run}"))


def begin_from(config: Config, run: Path) -> None:
    train(config(*TINY, *NOISE, f"init_from={run}", f"run_folder={run}/../other"))


def look(config: Config, run: Path) -> None:
    measured_by(RunFolder(run))


@pytest.mark.parametrize(
    ("file", "harm", "command"),
    [
        ("weights.safetensors", cut, measure),
        ("weights.safetensors", changed, measure),
        ("weights.safetensors", changed, begin_from),
        ("samples.csv", cut_at_a_row, measure),
        ("samples.csv", cut_at_a_row, resume),
        ("metrics.json", changed, measure),
        ("input_spec.json", changed, measure),
        ("metrics.csv", cut_at_a_row, resume),
        ("outputs_test.npz", changed, look),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_named(
    config: Config, run: Path, file: str, harm: Callable[[bytes], bytes], command: Callable[[Config, Path], None]
) -> None:
    (run / file).write_bytes(harm((run / file).read_bytes()))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"^{run}/{file} is damaged: .*Bring it back from a copy[^\n]*$"):
        command(config, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("file", "content", "command"),
    [
        ("weights.safetensors", "cut", measure),
        ("samples.csv", "sample,content,label,split\na,b,c\n", measure),
        ("samples.csv", "", resume),
        ("metrics.json", "{", measure),
        ("metrics.json", '{"metrics": 3}', measure),
        ("metrics.json", "[]", measure),
        ("input_spec.json", '{"size_px": 8}', measure),
        ("input_spec.json", '{"size_px": 0, "channels": 1, "mean": [0.5], "std": [0.5]}', measure),
        ("config.yaml", "a: [", measure),
        ("config.yaml", "[1]", resume),
        ("config.yaml", "3", measure),
        ("config.yaml", "data: {}", resume),
        ("calibration.json", "{}", lambda config, run: RunFolder(run).calibrate(SingleLabel(2))),
        ("outputs_test.npz", "PK", look),
    ],
)
def test_what_cannot_be_read_is_named_also_in_a_folder_without_a_manifest(
    config: Config, run: Path, file: str, content: str, command: Callable[[Config, Path], None]
) -> None:
    (run / "manifest.json").unlink()
    (run / file).write_text(content)
    with pytest.raises(UserError, match=rf"^{run}/{file} (is|cannot)[^\n]*$"):
        command(config, run)


def test_a_configuration_may_be_edited_and_that_is_said(
    config: Config, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "# mine\n")
    measure(config, run)
    assert caplog.text.count(f"{run}/config.yaml is not as the run wrote it") == 1


def test_damaged_results_are_written_again_and_a_deleted_history_is_gone_on_without(config: Config, run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("weights.safetensors", "outputs_test.npz", "metrics.csv")}
    (run / "weights.safetensors").write_bytes(b"cut")
    resume(config, run)
    assert {name: (run / name).read_bytes() for name in before} == before
    (run / "metrics.csv").unlink()
    resume(config, run)
    assert (run / "weights.safetensors").read_bytes() == before["weights.safetensors"]
    measure(config, run)


class Growing(Callback):
    """Says that metrics.csv is not in the manifest while it grows."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert "metrics.csv" not in read_manifest(Path(trainer.default_root_dir))


def test_a_run_that_is_killed_or_fails_is_not_taken_for_damaged(config: Config, tmp_path: Path) -> None:
    choices = (*TINY, *NOISE, *FIRST_EPOCH_IS_BEST, "callbacks.checkpoint.last_every_seconds=0")
    train(config(*choices, f"run_folder={tmp_path}/whole"))
    run = tmp_path / "run"
    with watched(Growing()), killed(1, 0):
        train(config(*choices))
    with watched(Growing()), killed(2, None):
        resume(config, run)
    evaluate(config(f"run={run}", "report=false", "split=val", name="evaluate"))
    best = next((run / "checkpoints").glob("best-*.ckpt"))
    whole = best.read_bytes()
    best.write_bytes(changed(whole))
    with pytest.raises(UserError, match=f"{best} is damaged: .*Train on: python -m thaw.train resume={run}"):
        measure(config, run)
    best.write_bytes(whole)
    resume(config, run)
    assert (run / "weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


def test_results_are_printed_before_they_are_written_and_a_full_folder_loses_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "thaw")
    choices = (*TINY, *NOISE, *FIRST_EPOCH_IS_BEST)
    train(config(*choices, f"run_folder={tmp_path}/whole"))
    caplog.clear()

    def full(self: RunFolder, name: str, text: str) -> None:
        if name == "class_names.json":
            raise OSError(28, "No space left on device", str(self.path / name))
        written(self, name, text)

    written = RunFolder.write
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", full)
        with pytest.raises(UserError, match=r"class_names.json: No space left on device. Make room .* To go on: "):
            train(config(*choices))
    assert "│ accuracy" in caplog.text
    resume(config, tmp_path / "run")
    for name in ("weights.safetensors", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Deletes(Callback):
    """Deletes the run folder after the first epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shutil.rmtree(trainer.default_root_dir)


def test_a_folder_that_is_deleted_in_mid_run_is_named(config: Config, tmp_path: Path) -> None:
    with watched(Deletes()), pytest.raises(UserError, match=f"{tmp_path}/run is gone: it was deleted or moved"):
        train(config(*TINY, *NOISE, "freezing=full", "freezing.epochs=3", "report=true"))
    assert not (tmp_path / "run/report.html").exists()


def test_a_folder_that_is_read_only_is_met_with_another_place(
    config: Config, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(dir: Path) -> AbstractContextManager[None]:
        if dir == run:
            raise OSError(30, "Read-only file system", f"{dir}/tmp")
        return nullcontext()

    monkeypatch.setattr(storage, "TemporaryFile", refuse)
    refused = f"{run} cannot be written to .*: "
    with pytest.raises(UserError, match=f"{refused}name another place, output=..."):
        measure(config, run)
    assert "loss/test" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"{refused}name another place, output=..."):
        report(config(f"run={run}", name="report"))
    with pytest.raises(UserError, match=f"{refused}copy the run folder to where it can be written"):
        resume(config, run)
    shutil.rmtree(run)
    with pytest.raises(UserError, match=f"{refused}name another place, run_folder=..."):
        train(config(*TINY, *NOISE))


def test_a_folder_that_becomes_full_is_met_with_another_place(
    config: Config, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("thaw.storage.write_atomically", full)
        with pytest.raises(UserError, match=f"{run} cannot be written to .*: name another place, output=..."):
            measure(config, run)
    assert "loss/test" in capsys.readouterr().out
    assert report(config(f"run={run}", f"output={tmp_path}/elsewhere/my.html", name="report")).is_file()
    assert not (run / "report.html").exists()
