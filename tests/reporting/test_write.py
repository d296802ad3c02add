"""The report that a run leaves, however it ends."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from PIL import Image
from scipy.special import softmax

from tests.conftest import TINY
from thaw.data.digits import Digits
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.predict import predict
from thaw.report import report
from thaw.reporting.history import curves_of, phase_results, rates_of
from thaw.runs.outputs import read_outputs
from thaw.tasks.calibration import negative_log_likelihood
from thaw.train import train

Config = Callable[..., DictConfig]

WRITTEN = [word for word in TINY if word not in ("report=false", "~callbacks.baselines", "~callbacks.speed")]
SHORT = ("freezing.probe_epochs=1", "freezing.epochs=3")


def text_of(file: Path) -> str:
    """What a reader sees, without markup and with single spaces."""
    body = re.sub(r"(?s)<(style|script).*?</\1>", " ", file.read_text())
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_a_run_leaves_a_report_and_the_commands_make_it_again(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(config(*WRITTEN, *SHORT))
    run = tmp_path / "run"
    shown = text_of(run / "report.html")
    assert f"{metrics['accuracy/test']:.1%} of 270 test images are classified right" in shown
    for name in ("accuracy/val", "loss/val", "loss/test", "macro_f1/test"):
        assert f"{metrics[name]:.4f}" in shown
    assert "1 1 head" in shown
    assert "2 2\u20133 all stages" in shown
    assert "k-NN on pretrained features" in shown
    assert "python -m thaw.train" in shown
    first = (run / "report.html").read_text()
    assert report(config(f"run={run}", name="report")) == run / "report.html"
    assert (run / "report.html").read_text() == first

    evaluate(config(f"run={run}", "split=val", name="evaluate"))
    assert f"{metrics['accuracy/val']:.1%} of 270 val images" in text_of(run / "evaluate_val.html")

    config_file = run / "config.yaml"
    config_file.write_text(config_file.read_text().replace("_target_: thaw.data.digits.Digits", "_target_: gone.Data"))
    report(config(f"run={run}", "trust=true", name="report"))
    assert "no samples are shown" in capsys.readouterr().out
    assert "of 270 test images" in text_of(run / "report.html")


def test_a_run_that_fails_leaves_what_there_is(config: Config, tmp_path: Path) -> None:
    wrong = "+callbacks.wrong._target_=tests.reporting.test_write.Failing"
    with pytest.raises(RuntimeError, match="the third epoch went wrong"):
        train(config(*WRITTEN, *SHORT, wrong))
    shown = text_of(tmp_path / "run/report.html")
    assert "failed" in shown
    assert "The run failed before anything was measured." in shown
    assert "the third epoch went wrong" in shown
    assert "Did it learn?" in shown
    with pytest.raises(UserError, match="is no run folder"):
        report(config(f"run={tmp_path}", name="report"))


class Failing(Callback):
    """Fails when the third epoch begins."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("the third epoch went wrong")


def test_the_temperature_is_used_where_it_is_asked_for(config: Config, tmp_path: Path) -> None:
    train(config(*TINY, *SHORT, "refit=off"))  # otherwise it is in the weights
    run = tmp_path / "run"
    temperature = json.loads((run / "calibration.json").read_text())["temperature"]
    val, test = (read_outputs(run / f"outputs_{split}.npz") for split in ("val", "test"))
    assert val is not None
    assert test is not None
    before, after = (negative_log_likelihood(val.logits, val.targets, t) for t in (1.0, temperature))
    assert after < before
    image = tmp_path / "image.png"
    Image.fromarray(Digits().images[test.indices[0]]).save(image)
    rows = {}
    for calibrate in ("false", "true"):
        output = f"output={tmp_path}/{calibrate}"
        words = (f"run={run}", f"input={image}", f"calibrate={calibrate}", output, "device=cpu")
        predict(config(*words, name="predict"))
        rows[calibrate] = list(json.loads((tmp_path / f"{calibrate}.jsonl").read_text())["probabilities"].values())
    assert np.allclose(rows["false"], softmax(test.logits[0]), atol=1e-5)
    assert np.allclose(rows["true"], softmax(test.logits[0] / temperature), atol=1e-5)
    assert not np.allclose(rows["true"], rows["false"], atol=1e-4)
    with pytest.raises(UserError, match="holds parameters only"):
        export(config(f"run={run}", "format=safetensors", "calibrate=true", name="export"))
    (run / "calibration.json").unlink()
    with pytest.raises(UserError, match=r"has no calibration\.json"):
        predict(config(*words, name="predict"))


ROWS = [
    {"epoch": "0", "step": "9", "accuracy/val": "0.5", "loss/train": "", "lr-AdamW/head/decay": ""},
    {"epoch": "0", "step": "9", "accuracy/val": "", "speed/epoch_seconds": "2", "speed/cached": "1"},
    {"epoch": "", "step": "3", "lr-AdamW/head/decay": "0.1"},
    {"epoch": "1", "step": "19", "accuracy/val": "0.4", "loss/train": "1.5", "speed/epoch_seconds": "3"},
    {"epoch": "1", "step": "19", "accuracy/val": "0.6"},
]
PHASES = [
    {"epochs": 1, "trains": "head", "parameters": 10, "lr_scale": 1.0},
    {"epochs": 3, "trains": "all stages", "parameters": 100, "lr_scale": 0.5},
    {"epochs": 1, "trains": "head", "parameters": 10, "lr_scale": 1.0},
]


def test_what_was_logged_becomes_curves_rates_and_phases() -> None:
    assert curves_of(ROWS) == {"accuracy": {"val": [(0, 0.5), (1, 0.6)]}, "loss": {"train": [(1, 1.5)]}}
    assert rates_of(ROWS) == {"head": [(3, 0.1)]}
    first, second = phase_results(PHASES, ROWS, "accuracy/val", "max")
    assert (first.first_epoch, first.last_epoch, first.seconds, first.cached) == (0, 0, 2, 1)
    assert (first.best_before, first.best_after) == (None, 0.5)
    assert (second.first_epoch, second.last_epoch, second.best_before, second.best_after) == (1, 1, 0.5, 0.6)
    assert phase_results(PHASES, [], "accuracy/val", "max") == []
