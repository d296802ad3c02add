"""Run folders of somebody else: every command refuses what could run code, leak or write elsewhere."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from tests.malice import save_malicious
from thaw.config.conf_folder import CONF
from thaw.storage import CACHE_VARIABLE
from thaw.train import train

QUIET = ("logger=none", "report=false", "~callbacks.progress_bar", "~callbacks.pictures", "~callbacks.baselines")
SHORT = ("data.labels_per_class=5", "freezing=head_only", "freezing.epochs=1", "trainer.accelerator=cpu", *QUIET)
COMMANDS = {
    "evaluate": ("evaluate", "run=run"),
    "predict": ("predict", "run=run", "input=0.png"),
    "export": ("export", "run=run", "format=safetensors", "samples=4"),
    "report": ("report", "run=run"),
    "replay": ("replay", "run=run"),
    "resume": ("train", "resume=run"),
    "init_from": ("train", "init_from=run", "run_folder=new", *SHORT),
}
"""Every command that takes a run folder."""

Command = Callable[..., str | None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of nothing but thaw's own."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        train(compose("train", [*SHORT, f"run_folder={folder}/run"]))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("0.png")
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Type a command; gives the text that it leaves with, None if it succeeds."""

    def run_command(name: str, *arguments: str) -> str | None:
        monkeypatch.setattr(sys, "argv", [f"thaw.{name}", *arguments])
        try:
            import_module(f"thaw.{name}").main()
        except SystemExit as leaving:
            return str(leaving.code)
        return None

    return run_command


def say(run: Path, **parts: Any) -> None:
    """Change the recorded configuration."""
    values = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in parts.items():
        group, _, name = key.partition("__")
        values[group] = {**(values[group] or {}), name: value}
    (run / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_a_run_folder_names_is_called(run: Path, typed: Command, command: str) -> None:
    proof, canary = save_malicious(run / "evil.pt"), run.parent / "canary"
    (run / "conf/loss").mkdir(parents=True)
    (run / "conf/loss/evil.yaml").write_text("_target_: run.evil.touch")
    (run / "evil.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\ntouch = print\n")
    touch = {"_target_": "shutil.copyfile", "src": "0.png", "dst": str(canary)}  # Hydra itself refuses subprocess.run
    say(
        run,
        loss__label_smoothing={"_target_": "torch.load", "f": str(run / "evil.pt"), "weights_only": False},
        head__dropout=touch,
        backbone__weights=touch,
        data__seed=touch,
        optimizer__lr=touch,
        freezing__epochs=touch,
        callbacks__evil=touch,
        trainer__profiler=touch,
        module__evil={"_target_": "run.evil.touch"},
    )
    before = files_of(run.parent)
    message = str(typed(*COMMANDS[command]))
    assert not proof.exists()
    assert not canary.exists()
    assert files_of(run.parent) == before
    assert "loss.label_smoothing._target_=torch.load" in message
    assert "trust=true" in message


@pytest.mark.parametrize("command", COMMANDS)
def test_no_variable_of_this_machine_is_read(
    run: Path, typed: Command, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY", "canary in clear")
    say(run, head___target_="${oc.env:CANARY}")
    message = str(typed(*COMMANDS[command], "trust=true"))
    printed = capsys.readouterr()
    assert "canary in clear" not in message + printed.out + printed.err
    assert not any(b"canary in clear" in content for content in files_of(run.parent).values())
    assert "${...} in " in message


@pytest.mark.parametrize("command", COMMANDS)
def test_links_out_of_a_run_folder_and_pipes_are_refused(run: Path, typed: Command, command: str) -> None:
    (run.parent / "mine.txt").write_text("mine")
    (run / "train.log").unlink()
    (run / "train.log").symlink_to(run.parent / "mine.txt")
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    before = files_of(run.parent)
    message = typed(*COMMANDS[command])
    assert message is not None
    assert str(run / "train.log") in message
    assert str(run / "metrics.csv") in message
    assert files_of(run.parent) == before


@pytest.mark.run
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_can_be_told_to_trust(run: Path, typed: Command, command: str) -> None:
    say(run, backbone___target_="nowhere.at_all")
    assert "trust=true" in str(typed(*COMMANDS[command]))
    assert "trust=true" not in str(typed(*COMMANDS[command], "trust=true"))


def test_a_class_of_one_s_own_needs_its_yaml_or_trust(run: Path, typed: Command) -> None:
    Path("own_loss.py").write_text("from torch.nn.functional import cross_entropy as loss\n")
    say(run, loss___target_="own_loss.loss")
    assert "loss._target_=own_loss.loss" in str(typed(*COMMANDS["predict"]))
    assert typed(*COMMANDS["predict"], "trust=true") is None
    for place, choice in (("mine", "--config-dir=mine"), ("conf", "output=here")):
        Path(place, "loss").mkdir(parents=True)
        Path(place, "loss/mine.yaml").write_text("_target_: own_loss.loss\n")
        assert typed(*COMMANDS["predict"], choice) is None
        shutil.rmtree(place)


def test_a_kit_is_judged_like_its_run(run: Path, typed: Command) -> None:
    (run / "crash").mkdir()
    shutil.copy(run / "config.yaml", run / "crash")
    save_malicious(run / "crash/crash.pt")
    assert "is damaged" in str(typed("replay", "run=run"))
    assert not (run / "crash/crash.proof").exists()
    (run / "crash/conf/loss").mkdir(parents=True)
    (run / "crash/conf/loss/evil.yaml").write_text("_target_: os.system")
    say(run / "crash", loss___target_="os.system")
    os.chdir(run / "crash")
    assert "loss._target_=os.system" in str(typed("replay", f"run={run}"))


def test_a_resumed_run_writes_into_its_folder_only(run: Path, typed: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for key, value in {"dirpath": str(tmp_path / "mine"), "filename": "../../mine/best"}.items():
        say(run, callbacks__checkpoint={"_target_": "thaw.training.checkpoint.RunCheckpoint", key: value})
        message = typed("train", "resume=run/checkpoints/last.ckpt")
        assert message is not None
        assert f"callbacks.checkpoint.{key}={value} lies outside of the run folder" in message
    assert [*(tmp_path / "mine").iterdir()] == []
