"""`python -m thaw.soup`: averages of the weights of runs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import TINY
from thaw.config import trainers
from thaw.config.assemble import assemble
from thaw.config.recorded import read_config
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.models.weights import read_safetensors
from thaw.runs.folder import RunFolder
from thaw.soup import probe, soup
from thaw.train import train

Config = Callable[..., DictConfig]
PLAN = ("freezing.epochs=3", "freezing.probe_epochs=1", "data.seed=0", "optimizer.lr=0.01")


@pytest.fixture
def sweep(config: Config, tmp_path: Path) -> Path:
    """Three runs that differ in their seed only, from the same weights."""
    train(config(*TINY, "freezing=full", "freezing.epochs=2", f"run_folder={tmp_path}/base"))
    for seed in range(3):
        started = (f"init_from={tmp_path}/base", f"seed={seed}", f"run_folder={tmp_path}/sweep/{seed}")
        train(config(*TINY, *PLAN, *started))
    return tmp_path / "sweep"


def cooked(config: Config, folder: Path, *choices: str) -> Path:
    return soup(config(f"folder={folder}", "report=false", *choices, name="soup"))


def tried(folder: Path, kind: str = "weights") -> list[dict[str, object]]:
    return json.loads((folder / "soup.json").read_text())[kind]


def test_a_soup_of_a_sweep_is_a_run_that_is_not_worse_than_its_members(
    config: Config, sweep: Path, tmp_path: Path
) -> None:
    folder = cooked(config, sweep, "report=true")
    assert folder == tmp_path / "sweep_soup"
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    runs = [json.loads((sweep / str(seed) / "metrics.json").read_text())["metrics"] for seed in range(3)]
    best = max(runs, key=lambda run: (run["accuracy/val"], -run["loss/val"]))
    assert (metrics["accuracy/val"], -metrics["loss/val"]) >= (best["accuracy/val"], -best["loss/val"] - 1e-6)
    assert len(tried(folder)) == 3
    assert tried(folder)[0]["metric"] == pytest.approx(best["accuracy/val"])
    assert len(tried(folder, "line")) == 9
    html = (folder / "report.html").read_text()
    assert "Which weights were averaged" in html
    assert f"python -m thaw.soup folder={sweep}" in html

    again = evaluate(config(f"run={folder}", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    train(config(*TINY, f"init_from={folder}", "freezing=full", "freezing.epochs=1", f"run_folder={tmp_path}/more"))
    assert cooked(config, sweep, "line=0") == folder, "an earlier soup is replaced"
    assert tried(folder, "line") == []


def test_the_line_of_a_run_begins_at_its_probe(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(*TINY, "freezing=full", "freezing.epochs=1", f"run_folder={tmp_path}/base"))
    started = (f"init_from={tmp_path}/base", "refit=off", f"run_folder={run}")
    train(config(*TINY, *PLAN, *started, "freezing.probe_epochs=2"))
    with (run / "metrics.csv").open() as file:
        losses = {row["epoch"]: float(row["loss/val"]) for row in csv.DictReader(file) if row.get("loss/val")}
    cfg = read_config(run)
    parts = assemble(cfg, RunFolder(run))
    parts.module.load_state_dict(probe([RunFolder(run)], config(f"folder={run}", name="soup")), strict=False)
    (metrics,) = trainers.trainer_without_logs(cfg).validate(parts.module, datamodule=parts.samples, verbose=False)
    assert metrics["loss/val"] == pytest.approx(losses["1"], rel=1e-6)
    assert len(tried(cooked(config, run, "line=3"), "line")) == 3


def test_statistics_of_batchnorm_are_not_those_of_any_member(config: Config, tmp_path: Path) -> None:
    for seed in (0, 1):
        choices = ("freezing=full", "freezing.epochs=1", "data.seed=0", f"seed={seed}")
        train(config(*TINY, *choices, f"run_folder={tmp_path}/sweep/{seed}"))
    folder = cooked(config, tmp_path / "sweep")
    assert tried(folder, "line") == [], "nothing was pretrained"
    first, second, average = (
        read_safetensors(run / "weights.safetensors")["backbone.stem.1.running_var"]
        for run in (tmp_path / "sweep/0", tmp_path / "sweep/1", folder)
    )
    taken = [one["taken"] for one in tried(folder)]
    assert torch.equal(average, first) or torch.equal(average, second) or all(taken)


def test_what_cannot_be_averaged_is_refused(config: Config, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for seed in (0, 1):  # which also decides the split
        train(config(*TINY, "freezing=full", "freezing.epochs=1", f"seed={seed}", f"run_folder={sweep}/{seed}"))
    with pytest.raises(UserError, match=r"nowhere does not exist: name the folder of a sweep, such as .*/sweep"):
        cooked(config, tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{sweep}/0 holds a run already: output=... names another folder"):
        cooked(config, sweep, f"output={sweep}/0")
    with pytest.raises(UserError, match=r"sweep/0 has no probe.safetensors: in its plan .* sweep=<folder>"):
        cooked(config, sweep / "0")
    with pytest.raises(UserError, match=r"no trial in .*sweep can be averaged .* other samples .* folder=.*sweep/\d"):
        cooked(config, sweep)
