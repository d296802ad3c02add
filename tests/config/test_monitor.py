"""What "best" means follows from the metric."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from tests.conftest import TINY
from thaw.config.monitor import mode_of, modes_of, require_measured
from thaw.errors import UserError
from thaw.train import train

Config = Callable[..., DictConfig]

KNOWN = modes_of({"accuracy": MulticlassAccuracy, "ece": MulticlassCalibrationError, "mine": MeanMetric})


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("loss/val", "min"), ("loss/train", "min"), ("accuracy/val", "max"), ("ece/val", "min")],
)
def test_the_mode_follows_from_the_metric(metric: str, mode: str) -> None:
    assert mode_of(metric, None, KNOWN[metric]) == mode
    assert mode_of(metric, mode, KNOWN[metric]) == mode
    other = "max" if mode == "min" else "min"
    with pytest.raises(UserError, match=f"monitor.mode={other} would keep the worst epoch"):
        mode_of(metric, other, KNOWN[metric])


def test_what_a_metric_does_not_say_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"type monitor.mode=max or monitor.mode=min"):
        mode_of("mine/val", None, KNOWN["mine/val"])
    assert mode_of("mine/val", "max", KNOWN["mine/val"]) == "max"


def test_a_metric_that_is_not_logged_is_met_with_those_that_are(config: Config) -> None:
    with pytest.raises(UserError, match=r"accuracy/train, accuracy/val, .*: type monitor.metric=accuracy/val$"):
        require_measured(config("monitor.metric=accuracy/validation"))
    with pytest.raises(UserError, match=r"type callbacks.early_stopping.monitor=accuracy/"):
        require_measured(config("callbacks.early_stopping.monitor=accuracy/test"))
    require_measured(config("monitor.metric=logged_by_my_module", "module._target_=mine.Module"))


def test_the_epoch_of_the_lowest_loss_is_kept_and_a_contradiction_leaves_no_folder(
    config: Config, tmp_path: Path
) -> None:
    worse = ("freezing.phases=[{epochs: 1, train: ['*']}, {epochs: 2, train: ['*'], lr_scale: 300}]",)
    chosen = (*TINY, "freezing=phases", *worse, "monitor.metric=loss/val")
    with pytest.raises(UserError, match="lower loss/val is better"):
        train(config(*chosen, "monitor.mode=max"))
    with pytest.raises(UserError, match=r"monitor.metric=los/val is not measured"):
        train(config(*chosen, "monitor.metric=los/val"))
    assert not (tmp_path / "run").exists()
    train(config(*chosen))
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["monitor"]["mode"] == "min"
    assert [file.name for file in (tmp_path / "run/checkpoints").glob("best-*")] == ["best-phase1-epoch000.ckpt"]


def test_overfitting_one_batch_reports_its_lowest_loss(config: Config, tmp_path: Path) -> None:
    metrics = train(config(*TINY, "debug=overfit", "freezing.epochs=20"))
    assert metrics["loss/train"] == min(
        float(row.split(",")[0]) for row in _column(tmp_path / "run/metrics.csv", "loss/train")
    )


def _column(file: Path, name: str) -> list[str]:
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    return [row[header.index(name)] for row in rows if row[header.index(name)]]
