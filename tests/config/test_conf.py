"""Every file under conf/: it composes, what it names can be built, and what it says at its top is true of it."""

import re
import shlex
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tests.conftest import CHOICES, TINY
from tests.language import pretrained, texts
from tests.photos import photos
from thaw.config.assemble import assemble, start
from thaw.config.conf_folder import CONF
from thaw.errors import UserError
from thaw.train import train

Config = Callable[..., DictConfig]

OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")
EXPERIMENTS = [
    p.stem for p in OPTIONS if any(fnmatch(str(p), f"experiment/{name}.yaml") for name in CHOICES["experiment"])
]
NEEDED = {
    "freezing/surgical": ["freezing.train=[head]"],
    "trainer/gpu": ["trainer.accelerator=cpu"],
    "trainer/ddp": ["trainer.accelerator=cpu", "trainer.devices=1"],
    "trainer/fsdp": ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto"],  # it wants a GPU
    "data/image_folder": ["data.root={photos}"],
    "data/image_table": ["data.table={photos}/labels.csv"],
    "data/torchvision_dataset": ["data.name=FakeData", "data.options={{size: 40, num_classes: 2}}"],
    "backbone/torchvision": ["backbone.weights=none"],
    "data/text_table": [
        "data.table={texts}",
        "backbone=huggingface",
        "backbone.name={bert}",
    ],
    "loss/binary_cross_entropy": ["task=multi_label"],
    "loss/mse": ["task=regression"],
    "backbone/timm": ["backbone.weights=none"],
    "backbone/gru": ["data=text_table", "data.table={texts}"],
    "backbone/huggingface": ["backbone.name={bert}", "data=text_table", "data.table={texts}"],
}
"""What an option cannot do without, here."""


def test_every_option_of_readme_is_there() -> None:
    assert len(CHOICES) >= 15
    for group, names in CHOICES.items():
        found = [path.stem for path in OPTIONS if path.parent.name == group]
        assert all(any(fnmatch(option, name) for option in found) for name in names), group
    assert len(EXPERIMENTS) >= 6


@pytest.mark.parametrize("option", [str(path.with_suffix("")) for path in OPTIONS])
def test_every_option_builds(config: Config, tmp_path: Path, option: str) -> None:
    group, name = option.split("/")
    if name in ("mlflow", "timm"):
        pytest.importorskip(name)
    choice = f"{group}={name}"
    write = {"photos": photos, "texts": texts, "bert": lambda folder: pretrained(folder / "bert")}
    needed = [
        override.format(**{name: write[name](tmp_path) for name in write if f"{{{name}}}" in override})
        for override in NEEDED.get(option, [])
    ]
    cfg = config(choice, *needed)
    is_own = not any(fnmatch(name, pattern) for pattern in CHOICES.get(group, ()))
    missing = OmegaConf.missing_keys(cfg)
    if is_own and missing:
        pytest.skip(f"a user's own, which needs {', '.join(missing)}")
    assert not missing
    try:
        run, parts, trainer = start(cfg)
    except UserError as error:
        if is_own:
            pytest.skip(f"a user's own, which needs other choices beside it: {error}")
        raise
    assert parts.loaders() is not None
    assert trainer.max_epochs == parts.plan.total_epochs or cfg.trainer.get("fast_dev_run")
    assert OmegaConf.load(run.path / "config.yaml") == cfg


def test_every_rung_of_the_ladder_builds_with_the_data_and_the_epochs_that_are_typed(config: Config) -> None:
    pytest.importorskip("peft")
    rungs = OmegaConf.load(CONF / "sweep/ladder.yaml").hydra.sweeper.params.experiment.split(",")
    assert {f"{file.parent.name}/{file.stem}" for file in CONF.glob("experiment/ladder/*.yaml")} == {*rungs}
    typed = ("freezing.epochs=6", "backbone.weights=default", "data.labels_per_class=2")
    built = {rung: assemble(config(f"experiment={rung}", *typed)) for rung in rungs}
    assert {parts.plan.total_epochs for parts in built.values()} == {6}
    assert [len(parts.samples.parts["train"]) for parts in built.values()] == [20] * 6
    assert [parts.backbone.kind for parts in built.values()].count("adapter") == 1
    pretrained = built["ladder/full"].network.state_dict()
    same = [
        all(torch.equal(value, pretrained[name]) for name, value in state.items() if name in pretrained)
        for state in ({n: v for n, v in p.network.state_dict().items() if "head" not in n} for p in built.values())
    ]
    assert dict(zip(rungs, same, strict=True)) == {rung: rung != "ladder/scratch" for rung in rungs}


def test_the_patterns_of_surgical_are_typed_as_its_file_says(config: Config) -> None:
    text = (CONF / "freezing/surgical.yaml").read_text()
    commands = re.findall(r"thaw.train (freezing=surgical .*)", text)
    typed = [config(*shlex.split(command, comments=True)).freezing.train for command in commands]
    assert typed == [["stem", "head"], ["head", "*.bias"], ["!stem", "!*norm*"]]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_says_its_command_result_and_time_and_runs(config: Config, experiment: str) -> None:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f"python -m thaw.train experiment={experiment}" in line for line in comments)
    assert any("test accuracy" in line and " s" in line for line in comments)
    short = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    quiet = [choice for choice in TINY if "backbone" not in choice and choice != "~callbacks.pictures"]
    quiet.append("callbacks.pictures=null")  # an experiment may have said so, and then there is nothing to take out
    assert "accuracy/test" in train(config(f"experiment={experiment}", *quiet, *(f"+{s}" for s in short)))
