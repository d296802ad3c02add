"""Searches from the command line: they go on where they stopped, and survive what fails."""

import csv
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from lightning import Callback, LightningModule, Trainer

from tests.conftest import TINY, watched
from tests.killing import Killed
from thaw.config import search as module
from thaw.runs.trials import record_failure
from thaw.train import main

Search = Callable[..., None]
SPACE = ("optimizer.lr=tag(log,interval(1e-3,3e-2))", "head.dropout=interval(0,0.5)")
SHORT = ("freezing=full", "freezing.epochs=2", "optimizer.lr_decay=0.8", "optimizer.weight_decay=0.01")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Run `thaw.train -m sweep=search`, in the folder `sweep`."""

    def run(*words: str, sweep: str = "s", trials: int = 4) -> None:
        own = [word for word in TINY if not word.startswith("optimizer")]
        place = (f"hydra.sweep.dir={tmp_path / sweep}", f"hydra.sweeper.n_trials={trials}", "hydra.sweeper.keep=2")
        typed = ["thaw.train", "-m", "sweep=search", *place, *own, *SHORT, *SPACE, *words]
        monkeypatch.setattr(sys, "argv", typed)
        main()

    return run


def table(sweep: Path) -> list[dict[str, str]]:
    """Rows of summary.csv, without what a clock says."""
    with (sweep / "summary.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


class KillTrials(Callback):
    """Kills the process in some trials, by number, after the step of an epoch; a trial that goes on is not killed."""

    def __init__(self, *numbers: int):
        self.numbers = list(numbers)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        number = int(Path(trainer.default_root_dir).name)
        if number in self.numbers and trainer.current_epoch == 1:
            self.numbers.remove(number)
            raise Killed


def test_a_search_that_is_killed_ends_as_if_nothing_had_happened(search: Search, tmp_path: Path) -> None:
    search(sweep="whole", trials=3)
    killer = KillTrials(0, 1)
    for _ in range(2):
        with watched(killer), pytest.raises(Killed):
            search(sweep="killed", trials=3)
    search(sweep="killed", trials=3)
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    assert [row["status"] for row in table(tmp_path / "whole")] == ["ok"] * 3
    best = max(table(tmp_path / "whole"), key=lambda row: float(row["best accuracy/val"]))["trial"]
    kept = {file.parent.parent.name for file in (tmp_path / "whole").glob("*/checkpoints/last.ckpt")}
    assert best in kept
    assert len(kept) == 2, "hydra.sweeper.keep"
    assert len(list((tmp_path / "whole").glob("*/weights.safetensors"))) == 3

    with watched(KillTrials(*range(3))):
        search(sweep="whole", trials=3)  # nothing is left to do
    search(sweep="whole", trials=4)
    assert [row["trial"] for row in table(tmp_path / "whole")] == ["0", "1", "2", "3"]


def test_trials_that_fail_are_recorded_and_the_others_go_on(
    search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        search(
            "freezing.epochs=choice(0,1)",
            "hydra/sweeper/sampler=grid",
            *(f"{key.partition('=')[0]}=0.01" for key in SPACE),
        )
    assert leaving.value.code == 1
    failed, finished = sorted(table(tmp_path / "s"), key=lambda row: row["status"])
    assert failed["status"].startswith("failed: freezing.epochs is a whole number from 1 on")
    assert finished["status"] == "ok"
    assert "1 of 2 trials failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        search("freezing.epochs=0", "hydra.sweeper.max_failures=2", sweep="bad")
    assert "the search ends: hydra.sweeper.max_failures=2, the last one: freezing.ep" in capsys.readouterr().out
    assert len(table(tmp_path / "bad")) == 2


def test_a_trial_whose_process_dies_is_started_again(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, starts = module.search, list[int]()

    def on_bad_machines(*parts: Any) -> None:
        *others, launch = parts

        def dies(overrides: Sequence[str], number: int) -> None:
            starts.append(number)
            if number == 1 or len(starts) == 1:
                raise RuntimeError("the worker was lost")
            launch(overrides, number)

        whole(*others, dies)

    monkeypatch.setattr(module, "search", on_bad_machines)
    with pytest.raises(SystemExit):
        search("freezing.epochs=1", trials=3)
    assert starts == [0, 0, 1, 1, 1, 2]
    assert [row["status"] for row in table(tmp_path / "s")] == ["ok", "failed: RuntimeError: the worker was lost", "ok"]


def test_a_full_disk_ends_the_search_and_no_trial_is_lost(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, starts = module.search, list[int]()

    def on_a_full_disk(*parts: Any) -> None:
        *others, launch = parts

        def fails(overrides: Sequence[str], number: int) -> None:
            starts.append(number)
            launch(overrides, number)
            if number == 1:
                record_failure(tmp_path / "s/1", [], f"checkpoints: {os.strerror(errno.ENOSPC)}. Make room there.")

        whole(*others, fails)

    with monkeypatch.context() as patch:
        patch.setattr(module, "search", on_a_full_disk)
        with pytest.raises(SystemExit, match=r"No space left .* The same command then goes on with this search"):
            search("freezing.epochs=1", trials=3)
    assert starts == [0, 1]
    search("freezing.epochs=1", trials=3)
    assert [row["status"] for row in table(tmp_path / "s")] == ["ok"] * 3


def test_what_does_not_fit_is_met_with_one_message(search: Search, tmp_path: Path) -> None:
    def refused(*words: str, **options: Any) -> str:
        with pytest.raises(SystemExit) as leaving:
            search(*words, **options)
        assert isinstance(leaving.value.code, str)
        return leaving.value.code

    search("freezing.epochs=1", trials=1)
    before = {file: file.read_bytes() for file in (tmp_path / "s/0").rglob("*") if file.is_file()}
    assert "holds another search: its space is " in refused("freezing.epochs=1", "head.dropout=interval(0,0.1)")
    assert "holds another search: its fixed is " in refused("freezing.epochs=3")
    assert "auc/val, which the search is to improve, was not measured by trial 0" in refused(
        "freezing.epochs=1", "hydra.sweeper.objectives={auc/val: max}", sweep="objective"
    )
    assert json.loads((tmp_path / "objective/0/metrics.json").read_text())["metrics"], "nothing is lost"
    assert before == {file: file.read_bytes() for file in (tmp_path / "s/0").rglob("*") if file.is_file()}
    assert "there is no key optimiser.lr: type optimizer.lr=" in refused("optimiser.lr=0.1", sweep="typo")
    assert not (tmp_path / "typo").exists()
    assert "is no space" in refused("head.dropout=interval(0.5,0)")
    assert "hydra.sweeper.n_trials is a whole number from 1 on, not 0" in refused(trials=0)
    assert "hydra.sweeper.objectives: loss/val is max or min, not low" in refused(
        "hydra.sweeper.objectives={loss/val: low}"
    )
    assert "does not take {'n_startups': 3}" in refused("+hydra.sweeper.sampler.n_startups=3")
    (tmp_path / "grid/0").mkdir(parents=True)
    (tmp_path / "grid/0/overrides.json").write_text("[]")
    assert "holds trials of a sweep that is no search, such as 0" in refused(sweep="grid")
    assert "nothing varies: type a space" in refused(
        *("freezing=full", "optimizer.lr=0.1", "head.dropout=0"), sweep="fixed"
    )


def test_further_workers_are_started_with_the_same_command(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = list[list[str]](), list[str]()

    class Worker:
        def __init__(self, command: list[str]):
            started.append(command)

        def wait(self) -> None:
            ended.append("waited for")

        def terminate(self) -> None:
            ended.append("terminated")

    typed = ["python", "-m", "thaw.train", "-m", "sweep=search"]
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(Popen=Worker))
    search("freezing.epochs=1", "hydra.sweeper.n_jobs=3", trials=1)
    assert started == [[*typed, "hydra.sweeper.n_jobs=1", "~hydra.callbacks.summary"]] * 2
    assert ended[:2] == ["waited for"] * 2


def test_a_search_may_be_copied_for_the_dashboard(search: Search, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    search("freezing.epochs=1", f"hydra.sweeper.storage={storage}", trials=2)
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.user_attrs["trial"] for trial in study.trials] == ["0", "1"]
    best = max(float(row["best accuracy/val"]) for row in table(tmp_path / "s"))
    assert study.best_value == pytest.approx(best, abs=1e-4)
