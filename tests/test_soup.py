"""`python -m thaw.soup`: averages of the weights of runs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from tests.commands import refused
from tests.conftest import TINY
from thaw.config import averaging, trainers
from thaw.config.assemble import assemble
from thaw.config.recorded import read_config
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.models.weights import read_safetensors
from thaw.runs.folder import RunFolder
from thaw.runs.outputs import CollectOutputs
from thaw.soup import soup
from thaw.sweeping.soup import Score, Validation
from thaw.train import train

Config = Callable[..., DictConfig]
PLAN = ("freezing.epochs=3", "freezing.probe_epochs=1", "data.seed=0", "optimizer.lr=0.01")


def cooked(config: Config, folder: Path, *choices: str) -> Path:
    return soup(config(f"folder={folder}", "report=false", *choices, name="soup"))


def tried(folder: Path, kind: str = "weights") -> list[dict[str, Any]]:
    return json.loads((folder / "soup.json").read_text())[kind]


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


@pytest.fixture
def anything_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measurement is better than those before."""
    scores = iter(Score((float(number), 0.0), float(number), 0.0) for number in range(1000))
    whole = Validation.__call__
    monkeypatch.setattr(Validation, "__call__", lambda self, weights: (whole(self, weights), next(scores))[1])


def test_a_soup_of_a_sweep_is_a_run_that_is_not_worse_than_its_members(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    train(config(*TINY, "freezing=full", "freezing.epochs=2", f"run_folder={tmp_path}/base"))
    sweep = tmp_path / "sweep"
    for seed in range(4):
        batchnorm = "freezing.batchnorm=" + ("frozen", "train", "frozen", "frozen")[seed]
        started = (f"init_from={tmp_path}/base", f"seed={seed}", batchnorm, f"run_folder={sweep}/{seed}")
        train(config(*TINY, *PLAN, *started))
    damaged = sweep / "3/weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    folder = cooked(config, sweep, "report=true", "line_points=4")
    assert folder == tmp_path / "sweep_soup"
    assert "sweep/3 is left out" in caplog.text
    metrics, members = metrics_of(folder), [metrics_of(sweep / str(seed)) for seed in range(3)]
    best = max(members, key=lambda run: (run["accuracy/val"], -run["loss/val"]))
    assert (metrics["accuracy/val"], -metrics["loss/val"]) >= (best["accuracy/val"], -best["loss/val"] - 1e-6)
    assert tried(folder)[0]["metric"] == best["accuracy/val"]
    assert tried(folder)[0]["loss"] == pytest.approx(best["loss/val"], rel=1e-6)
    assert (len(tried(folder)), len(tried(folder, "line"))) == (3, 4)
    last = [one for one in [*tried(folder), *tried(folder, "line")] if one["taken"]][-1]
    assert metrics["accuracy/val"] == last["metric"]
    assert metrics["loss/val"] == pytest.approx(last["loss"], rel=1e-5), "whatever was tried in between"
    html = (folder / "report.html").read_text()
    assert "Which weights were averaged" in html
    assert f"python -m thaw.soup folder={sweep}" in html
    assert "20% of the way from the probe" in (folder / "train.log").read_text()

    again = evaluate(config(f"run={folder}", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    train(config(*TINY, f"init_from={folder}", "freezing=full", "freezing.epochs=1", f"run_folder={tmp_path}/more"))
    with pytest.raises(UserError, match=r"sweep_soup holds a run already: output=... names another folder"):
        cooked(config, sweep)


@pytest.mark.usefixtures("anything_rises")
def test_the_mean_is_written_with_statistics_and_a_head_of_its_own(config: Config, tmp_path: Path) -> None:
    for seed in (0, 1):
        choices = ("freezing=full", "freezing.epochs=1", "data.seed=0", f"seed={seed}")
        train(config(*TINY, *choices, f"run_folder={tmp_path}/sweep/{seed}"))
    folder = cooked(config, tmp_path / "sweep")
    assert [one["taken"] for one in tried(folder)] == [True, True]
    first, second, average = (
        read_safetensors(run / "weights.safetensors") for run in (tmp_path / "sweep/0", tmp_path / "sweep/1", folder)
    )
    means = {name: torch.lerp(first[name], second[name], 0.5) for name in first if first[name].is_floating_point()}
    differing = {name for name, mean in means.items() if not torch.allclose(average[name], mean, atol=1e-6)}
    assert {name for name in means if "running" in name or name.startswith("head")} == differing


def test_weights_are_worth_the_same_whatever_was_measured_before(config: Config) -> None:
    parts = assemble(config(*TINY))
    trainer = trainers.trainer_without_logs(config(*TINY), [CollectOutputs()])
    validation = Validation(trainer, parts.module, parts.samples, "accuracy/val", "max", refit=True)
    first = {name: value.clone() for name, value in parts.module.state_dict().items()}
    average = {name: value * 0.9 if name.endswith("weight") else value for name, value in first.items()}
    other_statistics = {name: value + 0.1 if "running" in name else value for name, value in first.items()}
    validation(first)
    score = validation(average)
    assert validation(other_statistics) != score
    assert validation(average) == score


def test_the_line_of_a_run_begins_at_its_probe(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(*TINY, "freezing=full", "freezing.epochs=1", f"run_folder={tmp_path}/base"))
    started = (f"init_from={tmp_path}/base", "refit=off", f"run_folder={run}")
    train(config(*TINY, *PLAN, *started, "freezing.probe_epochs=2"))
    with (run / "metrics.csv").open() as file:
        losses = {row["epoch"]: float(row["loss/val"]) for row in csv.DictReader(file) if row.get("loss/val")}
    cfg = read_config(run)
    parts = assemble(cfg, RunFolder(run))
    start = averaging.probe(RunFolder(run), cfg, trust=False, is_single=True)
    assert start is not None
    parts.module.load_state_dict(start, strict=False)
    (metrics,) = trainers.trainer_without_logs(cfg).validate(parts.module, datamodule=parts.samples, verbose=False)
    assert metrics["loss/val"] == pytest.approx(losses["1"], rel=1e-6)
    folder = cooked(config, run, "line_points=3")
    assert len(tried(folder, "line")) == 3
    before = (folder / "metrics.json").stat().st_mtime_ns
    train(config(*TINY, *PLAN, *started, "freezing.probe_epochs=2", "resume=auto"))
    assert (folder / "metrics.json").stat().st_mtime_ns == before, "the newest folder of this configuration is no run"


def test_what_cannot_be_averaged_is_refused(config: Config, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for seed in (0, 1):  # which also decides the split
        train(config(*TINY, "freezing=full", "freezing.epochs=1", f"seed={seed}", f"run_folder={sweep}/{seed}"))
    for key in ("sweep", "run", "folder"):
        said = refused(f"python -m thaw.soup {key}={tmp_path}/nowhere")
        assert f"{tmp_path}/nowhere does not exist: name the folder of a sweep, such as {sweep}" in said
    assert "line_points is a whole number from 0 on" in refused(f"python -m thaw.soup run={sweep}/0 line_points=x")
    with pytest.raises(UserError, match=f"{sweep}/0 holds a run already: output=... names another folder"):
        cooked(config, sweep, f"output={sweep}/0")
    with pytest.raises(UserError, match=r"sweep/0 has no probe.safetensors: in its plan .* sweep=<folder>"):
        cooked(config, sweep / "0")
    with pytest.raises(UserError, match=r"no trial in .*sweep can be averaged .* other samples .* run=.*sweep/\d"):
        cooked(config, sweep)
