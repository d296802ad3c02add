"""Runs whose head is fitted anew after training."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import nn

from tests.conftest import TINY
from thaw.evaluate import evaluate
from thaw.models.heads import linear, mlp
from thaw.models.weights import read_checkpoint
from thaw.reporting.collect import collect, measured_by
from thaw.runs.folder import RunFolder
from thaw.runs.outputs import read_outputs
from thaw.train import train
from thaw.training.refit import evenly_spaced, linear_layer

Config = Callable[..., DictConfig]
HARDLY_TRAINED = (*TINY, "freezing.probe_epochs=1", "freezing.epochs=2", "optimizer.lr=1e-5")
"""So that a head in closed form is far better."""


def heads_of(run: Path) -> dict[str, dict[str, float]]:
    """Candidates by name."""
    return {head["name"]: head for head in json.loads((run / "metrics.json").read_text())["heads"]}


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param((), marks=pytest.mark.run),
        ("data.augment=light", "trainer.precision=bf16-mixed"),
        pytest.param(("caching=off",), marks=pytest.mark.run),
    ],
)
def test_all_that_a_run_leaves_is_of_the_new_head(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, choices: tuple[str, ...]
) -> None:
    caplog.set_level("INFO")
    metrics = train(config(*HARDLY_TRAINED, *choices))
    run = tmp_path / "run"
    heads = heads_of(run)
    (chosen,) = (head for head in heads.values() if head["chosen"])
    assert chosen["name"] != "as trained"
    assert chosen["accuracy"] > heads["as trained"]["accuracy"] + 0.2
    assert f"head: {chosen['name']} (validation log loss {chosen['log_loss']:.4f}; as trained " in caplog.text
    assert metrics["accuracy/val"] == pytest.approx(chosen["accuracy"], abs=0.02)
    assert metrics["loss/val"] == pytest.approx(chosen["log_loss"], abs=0.01)

    results = json.loads((run / "metrics.json").read_text())
    assert results["best"] == metrics["accuracy/val"]
    outputs = read_outputs(run / "outputs_val.npz")
    assert outputs is not None
    assert (outputs.predictions == outputs.targets).mean() == pytest.approx(metrics["accuracy/val"])
    assert json.loads((run / "calibration.json").read_text())["temperature"] == pytest.approx(1, abs=0.05)
    best = read_checkpoint(run / results["best_checkpoint"])
    saved = load_file(run / "weights.safetensors")
    changed = {name for name, value in saved.items() if not torch.equal(value, best["state_dict"][f"network.{name}"])}
    assert changed == {"head.1.weight", "head.1.bias"}
    for split in ("test", "val"):
        again = evaluate(config(f"run={run}", f"split={split}", name="evaluate"))
        assert again == {name: value for name, value in metrics.items() if name.endswith(f"/{split}")}
    report = collect(RunFolder(run), [str(digit) for digit in range(10)], measured_by(RunFolder(run)), None, None)
    assert {head.name: head._asdict() for head in report.heads} == heads

    (run / "metrics.json").unlink()  # as if it had been killed after training
    assert train(config(f"resume={run}")) == metrics
    assert heads_of(run) == heads


def test_the_trained_head_is_calibrated_where_it_stays(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.training.refit.choose", lambda found: found[0])
    train(config(*TINY, "loss.label_smoothing=0.5"))  # which makes it less sure than it could be
    run = tmp_path / "run"
    assert heads_of(run)["as trained"]["chosen"]
    assert json.loads((run / "calibration.json").read_text())["temperature"] == pytest.approx(1, abs=0.05)


def test_features_of_a_frozen_backbone_come_from_the_cache_and_are_the_same(config: Config, tmp_path: Path) -> None:
    heads = []
    for caching in ("on", "off"):
        folder = tmp_path / caching
        choices = ("freezing=head_only", "freezing.epochs=1", "optimizer.lr=1e-5", "data.augment=light")
        train(config(*TINY, *choices, f"caching={caching}", f"run_folder={folder}"))
        heads.append([head["log_loss"] for head in heads_of(folder).values()])
    assert heads[0][1:] == pytest.approx(heads[1][1:], abs=1e-4)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (("refit=off",), False),
        (("head=mlp",), False),
        (("module._target_=tests.tiny.Shifted",), False),
        (("+trainer.limit_val_batches=1",), False),
        (("+trainer.fast_dev_run=true",), False),
        (("data.balance=loss",), True),
        (("data.balance=sampler",), True),
        (("task.class_weights={0: 2}",), True),
        (("trainer.precision=bf16-true",), False),
    ],
)
def test_where_there_is_no_choice_the_trained_head_stays(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, choices: tuple[str, ...], told: bool
) -> None:
    caplog.set_level("INFO")
    train(config(*HARDLY_TRAINED, *choices))
    assert heads_of(tmp_path / "run") == {}
    assert ("head: as trained" in caplog.text) == told


def test_only_one_plain_linear_layer_is_replaced() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 10 * self.layer(features)

    assert linear_layer(head := linear(4, 3, dropout=0.1)) is head[1]
    assert linear_layer(layer := nn.Linear(4, 3)) is layer
    others = [mlp(4, 3, 5), nn.Linear(4, 3, bias=False), Scaled(), nn.Sequential(nn.ReLU(), nn.Linear(4, 3))]
    assert [linear_layer(other) for other in others] == [None] * 4


def test_of_many_samples_some_are_taken_of_every_class_in_proportion() -> None:
    targets = np.repeat([0, 1, 0, 2], [300, 60, 300, 90])
    indices = np.random.default_rng(0).permutation(len(targets))
    taken = evenly_spaced(indices, targets, 75)
    assert np.bincount(targets[taken]).tolist() == pytest.approx([60, 6, 9], abs=1)
    assert len(set(taken.tolist())) == 75
    assert sorted(evenly_spaced(indices, targets, 1000)) == list(range(750))
