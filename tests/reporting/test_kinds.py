"""Whole runs on any number of labels, and on numbers: their pictures and their reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Dataset

from tests.conftest import TINY
from tests.reporting.test_write import text_of
from thaw.evaluate import evaluate
from thaw.report import report
from thaw.reporting.kinds import RESULTS
from thaw.tasks.outputs import KINDS
from thaw.train import train

Config = Callable[..., DictConfig]

SHOWN = [word for word in TINY if word.startswith(("trainer", "+trainer", "optimizer", "~callbacks.progress_bar"))]
SHORT = ["freezing.probe_epochs=1", "freezing.epochs=2", "logger=tensorboard"]
IMAGES = ["backbone._target_=tests.tiny.backbone", "backbone.weights=null", "+data._target_=tests.reporting.test_kinds"]
TEXTS = ["backbone=gru", "data=shared/texts", "+data._target_=tests.reporting.test_kinds"]


class LabelledImages(Dataset[Any]):
    """Bright at the left, at the right, at both sides or at none."""

    class_names = ("left", "right")

    def __len__(self) -> int:
        return 120

    def __getitem__(self, index: int) -> tuple[Any, list[int]]:
        image = np.random.default_rng(index).integers(0, 60, (8, 8), dtype=np.uint8)
        labels = [index % 2, index // 2 % 2]
        image[:, :4] += np.uint8(150 * labels[0])
        image[:, 4:] += np.uint8(150 * labels[1])
        return image, labels


class MeasuredTexts(Dataset[Any]):
    """Texts with the number of their words."""

    class_names = ("words",)

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[str, list[float]]:
        words = 1 + index % 7
        return f"{'good ' * words}{index}", [words + 1.0]


def shown(run: Path) -> tuple[EventAccumulator, dict[str, Any]]:
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0, "tensors": 0}).Reload()
    return events, events.Tags()


def test_every_kind_of_outputs_has_results() -> None:
    assert set(RESULTS) == set(KINDS.values())


def test_a_run_on_labels(config: Config, tmp_path: Path) -> None:
    source = ["data=shared/images", *IMAGES[:2], f"{IMAGES[2]}.LabelledImages", "task=multi_label"]
    metrics = train(config(*SHOWN, *SHORT, *source))
    run = tmp_path / "run"
    _, tags = shown(run)
    names = {"precision_recall", "predictions", "mistakes"}
    assert {f"{name}/{split}" for name in ("precision_recall", "predictions") for split in ("val", "test")} < {
        *tags["images"]
    }
    assert {name.partition("/")[0] for name in tags["images"]} <= {*names, "inputs"}
    text = text_of(run / "report.html")
    assert f"Macro F1 is {metrics['macro_f1/test']:.3f}" in text
    assert f"the mean average precision is {metrics['mean_average_precision/test']:.3f}" in text
    (first, *_) = json.loads((run / "calibration.json").read_text())["thresholds"]
    assert f"{first:.3f}" in text
    assert set(json.loads((run / "baselines.json").read_text())["macro F1"]) == {"k-NN on pretrained features"}
    assert "k-NN on pretrained features" in text
    evaluate(config(f"run={run}", "split=val", name="evaluate"))
    assert f"Macro F1 is {metrics['macro_f1/val']:.3f}" in text_of(run / "evaluate_val.html")
    first_report = (run / "report.html").read_text()
    report(config(f"run={run}", name="report"))
    assert (run / "report.html").read_text() == first_report


def test_a_run_on_numbers_of_texts(config: Config, tmp_path: Path) -> None:
    source = [*TEXTS[:2], f"{TEXTS[2]}.MeasuredTexts", "task=regression"]
    metrics = train(config(*SHOWN, *SHORT, *source))
    run = tmp_path / "run"
    events, tags = shown(run)
    assert {name for name in tags["images"] if "/" in name} == {"scatter/val", "scatter/test"}
    (table,) = events.Tensors("mistakes/test/text_summary")
    header, _, first, *_ = table.tensor_proto.string_val[0].decode().splitlines()
    assert header == "| text | true | predicted | off by |"
    _, _, true, predicted, off_by, _ = first.split("|")
    assert abs(float(true) - float(predicted)) == pytest.approx(float(off_by), abs=0.01)
    text = text_of(run / "report.html")
    assert f"The words of 9 test texts is off by {metrics['mae/test']:.3g} (95% interval" in text
    assert "TF-IDF + ridge regression" in text
    assert "words speak for a larger number" in text
    evaluate(config(f"run={run}", "split=val", name="evaluate"))
    assert f"val texts is off by {metrics['mae/val']:.3g}" in text_of(run / "evaluate_val.html")
