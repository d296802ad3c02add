"""docs/your_own.md: each example is one file of Python and one of YAML, and works as it stands there."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, watched
from thaw.config.conf_folder import CONF
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.predict import predict
from thaw.train import train

DOCUMENT = (CONF.parent / "docs" / "your_own.md").read_text(encoding="utf-8")
MOST_LINES = 40
CHOICES = {
    "Data": ("data=faces", "data.file=faces.npz", "data.num_workers=0"),
    "Backbone": ("backbone=lenet",),
    "Head": ("head=unit_norm",),
    "Loss": ("loss=focal", "data.balance=loss"),
    "Metrics": ("task=ranked",),
    "Module": ("module=distillation", "module.teacher_folder=teacher"),
    "Plan": ("freezing=biases_then_all", "freezing.bias_epochs=1", "freezing.full_epochs=1"),
    "Schedule": ("schedule=triangle",),
    "Optimizer": ("optimizer=muon",),
    "Callback": ("callbacks=mistakes", "logger=tensorboard"),
    "Picture": ("task=margins", "logger=tensorboard"),
}
"""How each section's example is chosen."""
SHORT = ("freezing=full", "freezing.epochs=2")

Compose = Callable[..., DictConfig]


def examples(section: str) -> dict[str, str]:
    """The files of a section, by their paths."""
    text = next(part for part in DOCUMENT.split("\n## ") if part.startswith(section))
    return dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL))


@pytest.fixture(params=["inside", pytest.param("outside", marks=pytest.mark.run)])
def own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Compose a configuration with the examples' YAML beside thaw's own, or in a folder on the search path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    conf, place = CONF, f"hydra.searchpath=[file://{tmp_path}/conf]"
    if request.param == "inside":
        conf, place = tmp_path / "conf", "hydra.searchpath=[]"
        shutil.copytree(CONF, conf)

    def compose_own(section: str, *overrides: str, folder: str = "run", name: str = "train") -> DictConfig:
        for path, text in examples(section).items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
        loud = (f"{section.lower()}.", "~callbacks.pictures" if section == "Picture" else "-")
        quiet = [override for override in TINY if not override.startswith(loud)]
        if section == "Data":
            digits = load_digits()
            pixels = np.repeat(np.uint8(digits.images * 15)[:300, :, :, None], 3, axis=3)
            np.savez("faces.npz", images=pixels, labels=digits.target[:300], names=np.array(list("0123456789")))
        with initialize_config_dir(str(conf), version_base="1.3"):
            choices = [*(SHORT if section != "Plan" else ()), *CHOICES[section]]
            return compose(name, [*quiet, *choices, *overrides, f"run_folder={folder}", place])

    return compose_own


@pytest.fixture
def section(request: pytest.FixtureRequest, config: Compose, tmp_path: Path) -> str:
    """The section, and what its example needs."""
    if request.param == "Module":
        train(config(*TINY, *SHORT, f"run_folder={tmp_path}/teacher"))
    return request.param


class Stops(Callback):
    """Ends a run where its second epoch would begin."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise InterruptedError


def test_no_example_is_long() -> None:
    for section in CHOICES:
        files = examples(section)
        assert {"conf", "mine"} >= {path.split("/")[0] for path in files}, section
        assert sum(path.endswith(".py") for path in files) <= 1
        for path, text in files.items():
            assert 1 < text.count("\n") <= MOST_LINES, path


@pytest.mark.parametrize("section", CHOICES, indirect=True)
def test_an_example_trains(own: Compose, section: str) -> None:
    short = [f"+trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    metrics = train(own(section, *short))
    assert "accuracy/test" in metrics


@pytest.mark.run
@pytest.mark.parametrize("section", CHOICES, indirect=True)
def test_an_example_is_trained_resumed_evaluated_exported_and_predicts(
    own: Compose, config: Compose, section: str, tmp_path: Path
) -> None:
    metrics = train(own(section))
    with watched(Stops()), pytest.raises(InterruptedError):
        train(own(section, folder="stopped"))
    train(config(f"resume={tmp_path}/stopped"))
    whole, resumed = (load_file(tmp_path / folder / "weights.safetensors") for folder in ("run", "stopped"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())

    measured = evaluate(config("run=run", name="evaluate"))
    assert measured == {name: value for name, value in metrics.items() if name.endswith("/test")}
    Image.fromarray(np.uint8(load_digits().images[0] * 15)).resize((32, 32)).save("0.png")
    assert "0.png" in predict(config("run=run", "input=0.png", name="predict")).read_text()
    shutil.rmtree("conf")  # what no YAML file names any more needs trust
    assert export(config("run=run", "trust=true", "format=exported_program", "samples=4", name="export")).is_file()
    if section == "Metrics":
        assert {"top5/val", "auroc/test"} <= metrics.keys()
    if section == "Callback":
        events = EventAccumulator(str(tmp_path / "run/tensorboard"), {"images": 0}).Reload()
        assert len(events.Images("mistakes")) == 3  # of the check before training, and of two epochs
    if section == "Picture":
        events = EventAccumulator(str(tmp_path / "run/tensorboard"), {"images": 0}).Reload()
        assert len(events.Images("margins/test")) == 1
