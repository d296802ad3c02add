"""Which run a command goes on with, and what may change then."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from omegaconf import DictConfig

from tests.conftest import TINY
from tests.killing import killed
from tests.test_train import assert_same
from tests.training.test_checkpoint import ended
from thaw.config import resume
from thaw.config.recorded import read_config
from thaw.config.resume import open_run
from thaw.train import train

Config = Callable[..., DictConfig]

SHORT = (*TINY, "freezing=head_only", "freezing.epochs=2", "callbacks.checkpoint.every_minutes=0")
AUTO = (*SHORT, "resume=auto")


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_auto_goes_on_with_the_newest_run_of_the_same_configuration(config: Config, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    train(config(*AUTO, f"run_folder={runs}/1"))  # there is none yet: it begins
    with killed(1, 2):
        train(config(*SHORT, f"run_folder={runs}/2"))
    train(config(*SHORT, "optimizer.lr=0.01", f"run_folder={runs}/3"))
    train(config(*AUTO, f"run_folder={runs}/4"))
    assert sorted(path.name for path in runs.iterdir()) == ["1", "2", "3"]
    assert_same(ended(runs / "2"), ended(runs / "1"))
    train(config(*AUTO, "seed=5", f"run_folder={runs}/5"))
    assert (runs / "5/metrics.json").exists()


def test_auto_begins_again_where_there_is_no_checkpoint_yet_and_leaves_runs_in_use(
    config: Config, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with killed(0, 0):
        train(config(*SHORT, f"run_folder={runs}/1"))
    run_id = read_config(runs / "1").run_id
    with FileLock(runs / "1/.lock"):
        with pytest.raises(ValueError, match=f"{runs}/1 is in use"):
            train(config(*SHORT, f"run_folder={runs}/1"))
        train(config(*AUTO, f"run_folder={runs}/2"))
    (runs / "2").rename(tmp_path / "2")
    train(config(*AUTO, f"run_folder={runs}/3"))
    assert [path.name for path in runs.iterdir()] == ["1"]
    assert read_config(runs / "1").run_id == run_id
    assert_same(ended(runs / "1"), ended(tmp_path / "2"))


@pytest.mark.parametrize(
    "content", ["", "a: [", "[1, 2]", "trainer: 3", "trainer: {devices: 1}\ndata: ${oc.env:NOWHERE}", "\x00"]
)
def test_auto_leaves_alone_and_names_a_folder_whose_configuration_is_none(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    other = tmp_path / "runs/other"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text(content)
    _, run = open_run(config(*AUTO, f"run_folder={tmp_path}/runs/1"))
    assert run.path == tmp_path / "runs/1"
    assert f"{other} is left alone" in caplog.text
    assert (other / "config.yaml").read_text() == content


def test_a_named_folder_is_the_one_that_auto_means(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    train(config(*SHORT, f"run_folder={runs}/1"))
    monkeypatch.setattr(resume, "typed_overrides", lambda: [f"run_folder={runs}/2", "resume=auto"])
    train(config(*AUTO, f"run_folder={runs}/2"))
    assert (runs / "2/metrics.json").exists()


def test_a_damaged_last_checkpoint_is_skipped(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    train(config(*SHORT, f"run_folder={tmp_path}/whole"))
    with killed(1, 3):
        train(config(*SHORT))
    file = run / "checkpoints/last.ckpt"
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match="its checksum differs"):
        train(config(f"resume={file}"))
    train(config(f"resume={run}"))
    assert "trying the one before it" in caplog.text
    assert_same(ended(run), ended(tmp_path / "whole"))


ONE, TWO = "{epochs: 2, train: [head]}", "{epochs: 2, train: ['*'], lr_scale: 0.5}"


def test_a_finished_run_is_extended_by_further_phases(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(*TINY, "freezing=phases", f"freezing.phases=[{ONE}, {TWO}]", f"run_folder={tmp_path}/whole"))
    train(config(*SHORT))
    run = tmp_path / "run"
    typed = [f"resume={run}", "freezing=phases", f"freezing.phases=[{ONE}, {TWO}]"]
    monkeypatch.setattr(resume, "typed_overrides", lambda: typed)
    train(config(*typed))
    whole, extended = last(tmp_path / "whole"), last(run)
    for name in ("state_dict", "optimizer_states", "order", "epoch", "global_step"):
        assert_same(extended[name], whole[name])


@pytest.mark.run
def test_patience_begins_anew_in_a_run_that_is_extended(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = (
        "monitor.metric=plan/phase",
        "monitor.mode=max",
        "callbacks.early_stopping.patience=1",
    )  # never better within a phase
    train(config(*TINY, "freezing=phases", f"freezing.phases=[{ONE.replace('2', '5')}]", *patient))
    run = tmp_path / "run"
    assert last(run)["epoch"] == 1, "it stopped early"
    typed = [f"resume={run}", "freezing=phases", f"freezing.phases=[{ONE.replace('2', '5')}, {TWO.replace('2', '4')}]"]
    monkeypatch.setattr(resume, "typed_overrides", lambda: typed)
    train(config(*typed))
    assert last(run)["epoch"] == 6, "the first phase comes to its end, and the next is worse only once"


@pytest.mark.parametrize(
    "phases",
    [
        [ONE.replace("2", "3"), TWO],  # the phase had another length, and so another schedule
        [ONE.replace("head", "layer2, head"), TWO],
        [ONE.replace("}", ", lr_scale: 2}"), TWO],
        [TWO, ONE],
    ],
)
def test_a_plan_whose_past_differs_is_refused(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phases: list[str]
) -> None:
    with killed(1, 2):
        train(config(*SHORT))
    typed = [f"resume={tmp_path}/run", "freezing=phases", f"freezing.phases=[{', '.join(phases)}]"]
    monkeypatch.setattr(resume, "typed_overrides", lambda: typed)
    file = tmp_path / "run/checkpoints/last.ckpt"
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"the first 1 phases of .*\{epochs: 2, train: \[head\], lr_scale: 1.0\}, ..."):
        train(config(*typed))
    assert file.read_bytes() == before


@pytest.mark.run
def test_begun_phases_are_compared_by_parameters_and_printed_as_they_can_be_typed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = """{epochs: 2, train: [head, "*.bias", "!stem"]}"""
    with killed(1, 2):
        train(config(*SHORT[:-3], "freezing=phases", f"freezing.phases=[{begun}]", SHORT[-1]))

    def resumed(*phases: str) -> None:
        typed = [f"resume={tmp_path}/run", *phases]
        monkeypatch.setattr(resume, "typed_overrides", lambda: typed)
        train(config(*typed))

    with pytest.raises(ValueError, match="have begun") as error:
        resumed("freezing=phases", f"freezing.phases=[{begun.replace('*.bias', '*.weight')}]")
    command = str(error.value).split("Type ")[1].split(" with further")[0]
    resumed(*shlex.split(command.replace("...", ONE)))
    assert last(tmp_path / "run")["epoch"] == 3
