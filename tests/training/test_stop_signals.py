"""Signals that ask a run to stop."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY, watched
from tests.test_train import THREE_PHASES, assert_same
from tests.training.test_checkpoint import ended
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.models.weights import read_checkpoint
from thaw.train import main, train
from thaw.training.stop_signals import Stopped, StopSignals, leave_on_ctrl_c

Config = Callable[..., DictConfig]

RUN = (*TINY, *THREE_PHASES, "callbacks.checkpoint.every_minutes=null", "trainer.log_every_n_steps=1")


class Signal(Callback):
    """Sent while a batch is trained; `batch` None: while the epoch is validated."""

    def __init__(self, number: int, epoch: int, batch: int | None):
        self.number, self.epoch, self.batch = number, epoch, batch

    def on_before_backward(self, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (self.epoch, self.batch):
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.batch is None and trainer.current_epoch == self.epoch and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Shells have Ctrl-C ignored in what runs in the background, nohup SIGHUP."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "epoch", "batch"),
    [
        pytest.param(signal.SIGTERM, 143, 2, 1, marks=pytest.mark.run),
        pytest.param(signal.SIGUSR1, 138, 0, 0, marks=pytest.mark.run),
        (signal.SIGINT, 130, 1, 1),
        pytest.param(signal.SIGHUP, 129, 3, None, marks=pytest.mark.run),
        (signal.SIGTERM, 143, 3, 3),  # its last batch: the epoch is brought to its end
    ],
)
def test_a_run_that_is_asked_to_stop_saves_and_leaves_and_goes_on_as_if_it_had_not(
    config: Config,
    tmp_path: Path,
    number: int,
    code: int,
    epoch: int,
    batch: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(config(*RUN, f"run_folder={tmp_path}/whole"))
    run = tmp_path / "run"
    caplog.set_level("INFO", "thaw")
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    with watched(Signal(number, epoch, batch)), pytest.raises(Stopped) as stopped:
        train(config(*RUN))
    assert stopped.value.code == code
    assert f"stopped in epoch {epoch + 1} of 6. To go on: python -m thaw.train resume={run}" in caplog.text
    assert {each: signal.getsignal(each) for each in before} == before
    train(config(f"resume={run}"))
    assert_same(ended(run), ended(tmp_path / "whole"))


def test_a_second_ctrl_c_does_not_wait(config: Config, tmp_path: Path) -> None:
    twice = (Signal(signal.SIGINT, 0, 0), Signal(signal.SIGINT, 0, 0))
    with watched(*twice), pytest.raises(Stopped) as stopped:
        train(config(*RUN, *NOISE))
    assert stopped.value.code == 130
    assert not (tmp_path / "run/checkpoints").exists()


def test_what_nohup_and_shells_have_ignored_stays_ignored() -> None:
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        with leave_on_ctrl_c(), StopSignals() as stops:
            for number in numbers:
                os.kill(os.getpid(), number)
            assert not stops.received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.run
def test_a_sweep_that_is_stopped_leaves_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    plan = ("freezing=head_only", "freezing.epochs=1,2", f"hydra.sweep.dir={sweep}")
    monkeypatch.setattr(sys, "argv", ["thaw.train", "-m", *TINY, *NOISE, *plan])
    with watched(Signal(signal.SIGINT, 1, 0)), pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    summary = (sweep / "summary.md").read_text()
    assert summary.splitlines()[-1] in capsys.readouterr().out
    assert "| 0 | 1 | ok |" in summary
    assert summary.splitlines()[-1].endswith("; 1 of 2 trials have not ended")


@pytest.mark.run
def test_a_cluster_job_is_queued_again_and_then_goes_on_in_its_folder(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/queued\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    typed = (*RUN, f"run_folder={tmp_path}/runs/first")
    with watched(Signal(signal.SIGUSR1, 1, 1)), pytest.raises(Stopped):
        train(config(*typed))
    assert (tmp_path / "queued").read_text() == "requeue 42\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    # The same command: where the folder has the time in its name, it has another name now.
    train(config(*RUN, f"run_folder={tmp_path}/runs/second"))
    train(config(*RUN, f"run_folder={tmp_path}/whole/whole"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]
    assert_same(ended(tmp_path / "runs/first"), ended(tmp_path / "whole/whole"))

    scontrol.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    with watched(Signal(signal.SIGUSR1, 1, 1)), pytest.raises(Stopped):
        train(config(*RUN, f"run_folder={tmp_path}/third"))
    assert "scontrol requeue 42 failed" in caplog.text


class SignalAt(Callback):
    """Where nothing is trained: in the sanity check, or in the test."""

    def __init__(self, hook: str):
        setattr(self, hook, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("hook", [pytest.param("on_sanity_check_start", marks=pytest.mark.run), "on_test_batch_start"])
def test_before_and_after_training_a_signal_ends_the_run_at_once(config: Config, tmp_path: Path, hook: str) -> None:
    train(config(*RUN, f"run_folder={tmp_path}/whole"))
    with watched(SignalAt(hook)), pytest.raises(Stopped) as stopped:
        train(config(*RUN))
    assert stopped.value.code == 143
    run = tmp_path / "run"
    assert not (run / "metrics.json").exists()
    train(config(*RUN, f"run_folder={run}", "resume=auto"))
    assert_same(ended(run), ended(tmp_path / "whole"))


def test_a_stopped_run_is_measured_with_its_best_weights_so_far(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with watched(Signal(signal.SIGINT, 0, 1)), pytest.raises(Stopped):
        train(config(*RUN))
    with pytest.raises(UserError, match="has no weights yet"):
        evaluate(config(f"run={run}", name="evaluate"))
    with watched(Signal(signal.SIGINT, 3, 1)), pytest.raises(Stopped):
        train(config(f"resume={run}"))
    assert not (run / "weights.safetensors").exists()
    best = read_checkpoint(next((run / "checkpoints").glob("best-*.ckpt")))
    measured = evaluate(config(f"run={run}", "split=val", name="evaluate"))
    assert measured["loss/val"] == pytest.approx(best["metrics"]["loss/val"])
    assert "these are the weights of its best epoch so far" in caplog.text
