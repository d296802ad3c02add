"""What a run folder says of its run."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY
from tests.killing import killed
from thaw.train import train

Config = Callable[..., DictConfig]

FIRST_EPOCH_IS_BEST = ("freezing=full", "freezing.epochs=3", "monitor.metric=plan/phase", "monitor.mode=max")
"""The monitored value is the same in all epochs, so that no epoch is better than the first."""


@pytest.mark.parametrize("test_fraction", [0, 0.15])
def test_final_metrics_are_those_of_the_best_epoch(config: Config, tmp_path: Path, test_fraction: float) -> None:
    metrics = train(config(*TINY, *NOISE, *FIRST_EPOCH_IS_BEST, f"data.test_fraction={test_fraction}"))
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
