"""What a recorded configuration may name without `trust=true`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from thaw.config.conf_folder import CONF
from thaw.config.offered import Naming, offers, own_folders, strange, unresolved

Config = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def offered() -> set[Naming]:
    return {*offers([CONF])}


def test_what_thaw_itself_records_is_offered(offered: set[Naming], config: Config) -> None:
    choices = ("data=image_table", "backbone=timm", "optimizer=sgd", "callbacks=ema", "logger=[wandb,mlflow]")
    values: Any = OmegaConf.to_container(config(*choices, "mixing=mixup", "experiment=digits_gradual", "trainer=fsdp"))
    assert strange(values, offered) == []


@pytest.mark.parametrize(
    ("key", "node", "is_strange"),
    [
        ("optimizer", {"_target_": "torch.optim.NAdam"}, False),
        ("optimizer", {"_target_": "torch.optim.lr_scheduler.StepLR"}, True),
        ("optimizer", {"_target_": "torch.optim.NAdam", "_args_": [1]}, True),
        ("optimizer", {"_target_": "torch.optim.AdamW", "_recursive_": False}, True),
        ("schedule", {"_target_": "torch.optim.lr_scheduler.StepLR"}, False),
        ("loss", {"_target_": "torch.nn.MultiMarginLoss"}, False),
        ("loss", {"_target_": "torch.nn.Linear"}, True),
        ("loss", {"_target_": "torch.load"}, True),
        ("loss", {"_target_": ["torch.load"]}, True),
        ("loss", {"_args_": ["a"]}, True),
        ("head", {"_target_": "torch.nn.Linear"}, False),
        ("head", {"_target_": "torch.nn.modules.linear.os.system"}, True),
        ("head.dropout", {"_target_": "torch.nn.Linear"}, True),
        ("task.metrics.top5", {"_target_": "torchmetrics.classification.MulticlassAUROC"}, False),
        ("task.metrics.top5", {"_target_": "torchmetrics.Accuracy"}, False),
        ("task.metrics.top5", {"_target_": "torchmetrics.image.FrechetInceptionDistance"}, True),
        ("task.class_weights", {"_target_": "torchmetrics.Accuracy"}, True),
        ("callbacks.ema", {"_target_": "thaw.training.ema.EMA"}, False),
        ("callbacks.mine", {"_target_": "lightning.pytorch.callbacks.Timer"}, False),
        ("callbacks.mine", {"_target_": "lightning.pytorch.callbacks.OnExceptionCheckpoint"}, True),
        ("logger.csv", {"_target_": "lightning.pytorch.loggers.CSVLogger"}, False),
        ("trainer.profiler", {"_target_": "lightning.Trainer"}, True),
        ("data.list", [{"_target_": "os.system"}], True),
        ("freezing", {"_target_": "thaw.training.ema.EMA"}, True),  # offered in another group
    ],
)
def test_positions_and_public_names_matter(offered: set[Naming], key: str, node: Any, is_strange: bool) -> None:
    for name in reversed(key.split(".")):
        node = {name: node}
    assert bool(strange(node, offered)) == is_strange


def test_yaml_files_offer_what_they_name_where_hydra_puts_it(tmp_path: Path) -> None:
    texts = {
        "loss/mine.yaml": "_target_: mine.loss\ninner: {_target_: mine.inner, _partial_: true}",
        "data/shared/more.yaml": "_target_: mine.source",
        "experiment/all.yaml": "# @package _global_\nhead: {_target_: mine.head}",
        "other/place.yaml": "# @package callbacks.own\n_target_: mine.callback",
        "broken.yaml": "_target_: [",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    alone, deferred = frozenset({"_target_"}), frozenset({"_target_", "_partial_"})
    assert offers([tmp_path]) == {
        Naming("loss", 1, "mine.loss", alone),
        Naming("loss", 2, "mine.inner", deferred),
        Naming("data", 1, "mine.source", alone),
        Naming("data", 2, "mine.source", alone),
        Naming("head", 1, "mine.head", alone),
        Naming("callbacks", 2, "mine.callback", alone),
    }


def test_a_folder_inside_the_run_folder_is_not_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run/crash/conf").mkdir(parents=True)
    (tmp_path / "run/config.yaml").touch()
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    assert own_folders(tmp_path / "run") == [CONF, tmp_path / "conf"]
    monkeypatch.chdir(tmp_path / "run/crash")
    for folder in (tmp_path / "run", tmp_path / "run/crash"):
        assert own_folders(folder) == [CONF]


def test_what_is_to_be_filled_in_is_found_in_values_and_keys() -> None:
    values = {"a": [1, {"b": "x ${oc.env:HOME}"}], "${c}": None, "d": "$5 {}"}
    assert unresolved(values) == ["a.1.b", "${c}"]
