"""What a machine does to a run: one message with the next command, exit code 1, and a resume to the same bits."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import NOISE, TINY, watched
from tests.faulty import FailAt, Full, Spoil, in_fork
from tests.photos import photos
from thaw.check import main as check
from thaw.evaluate import main as evaluate
from thaw.export import main as export
from thaw.faults import fault
from thaw.predict import main as predict
from thaw.train import main

Command = Callable[..., str | None]
FOUR_EPOCHS = ("freezing=full", "freezing.epochs=4", "caching=off", "data.labels_per_class=null")
FAILING = (*TINY, "data._target_=tests.faulty.Failing", *FOUR_EPOCHS)
LAST_WORDS = "To go on with batches of this size: python -m thaw.train resume={run} data.num_workers=0"


@pytest.fixture(autouse=True)
def can_train_in_a_fork(request: pytest.FixtureRequest) -> None:
    """Once torch has started threads for gradients, a fork cannot train: then the test runs in a process of its own."""

    def compute_gradients() -> None:
        torch.ones(1, requires_grad=True).sum().backward()

    compute_gradients()  # here, too: the first ones decide
    if in_fork(compute_gradients)[0] != 0:
        command = [sys.executable, "-m", "pytest", "-q", request.node.nodeid]
        done = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        pytest.skip("passed in a process of its own")


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `thaw.train` with these overrides; gives the message that it leaves with, None if it ends well."""

    def run(*overrides: str) -> str | None:
        monkeypatch.setattr(sys, "argv", ["thaw.train", *overrides])
        capsys.readouterr()
        try:
            main()
            return None
        except SystemExit as leaving:
            said = leaving.code
        assert isinstance(said, str), "exit code 1, this text on stderr"
        assert said.startswith("error: ")
        assert "Traceback" not in said + "".join(capsys.readouterr())
        assert "\n" not in said
        return said.removeprefix("error: ")

    return run


def require_same_end(train: Command, said: str, undisturbed: tuple[str, ...], run: Path) -> None:
    """Type the command that a message ends with; the run ends with the weights of one that nothing happened to."""
    command = re.search(r"python -m thaw\.train (.+)$", said)
    assert command is not None
    assert train(*command[1].split()) is None
    assert train(*undisturbed, f"run_folder={run.parent}/undisturbed") is None
    whole, resumed = (load_file(folder / "weights.safetensors") for folder in (run.parent / "undisturbed", run))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param(
            "kill",
            "a loader process was ended by a signal (Killed): out of memory? Fewer of them need less: type ",
            marks=pytest.mark.run,
        ),
        ("shared memory", "shared memory (/dev/shm) has no room for the batches of loader processes: type "),
        pytest.param("memory", "out of memory: type ", marks=pytest.mark.run),
    ],
)
def test_a_loader_process_that_fails(train: Command, tmp_path: Path, kind: str, said: str) -> None:
    if kind == "shared memory" and not Path("/dev/shm").is_dir():
        pytest.skip("this machine hands batches over in another way")
    choices = (*FAILING, f"+data.fault={kind}")
    message = train(*choices, "data.num_workers=2", f"run_folder={tmp_path}/run")
    assert message is not None
    assert message.startswith(f"{said}data.num_workers=0, or a smaller data.batch_size. ")
    assert message.endswith(LAST_WORDS.format(run=tmp_path / "run"))
    assert not (tmp_path / "run/crash").exists()
    require_same_end(train, message, (*choices, "data.num_workers=0"), tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("device memory", "the device is out of memory (CUDA out of memory. Tried to allocate 20.00 GiB."),
        pytest.param("cpu memory", "out of memory (", marks=pytest.mark.run),
        ("full", "{run}: No space left on device. Make room on that disk. To go on: python -m thaw.train resume={run}"),
    ],
)
def test_a_step_that_fails(train: Command, tmp_path: Path, kind: str, said: str) -> None:
    choices = (*FAILING, "data.num_workers=0", "+data.fault=none")
    with watched(FailAt(kind)):
        message = train(*choices, f"run_folder={tmp_path}/run")
    assert message is not None
    assert message.startswith(said.replace("{run}", f"{tmp_path}/run"))
    assert ("smaller data.batch_size" in message) == ("memory" in kind)
    require_same_end(train, message, choices, tmp_path / "run")


@pytest.mark.run
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.run), 2])
@pytest.mark.parametrize(("how", "said"), [("gone", "there is no such file"), ("cut", "cannot be decoded")])
def test_a_data_file_that_goes_in_mid_run(train: Command, tmp_path: Path, how: str, said: str, workers: int) -> None:
    file = photos(tmp_path) / "red/3.png"
    content = file.read_bytes()
    choices = [*TINY, "data=image_folder", f"data.root={tmp_path}/photos", "+backbone.channels=3", *FOUR_EPOCHS]
    choices += [f"data.num_workers={workers}", "data.augment=light", "data.val_fraction=0.1", "data.test_fraction=0"]
    with watched(Spoil(file, how)):
        message = train(*choices, f"run_folder={tmp_path}/run")
    assert message is not None
    assert message.startswith(f"{file}: {said}")
    file.write_bytes(content)
    require_same_end(train, message, tuple(choices), tmp_path / "run")


def test_before_the_first_checkpoint(train: Command, tmp_path: Path) -> None:
    with watched(FailAt("device memory", step=0)):
        message = train(*FAILING, "+data.fault=none", "data.num_workers=0", f"run_folder={tmp_path}/run")
    assert message is not None
    assert message.endswith("type a smaller data.batch_size. There is no checkpoint yet.")


NO_ROOM = "File too large. Make room on that disk"


@pytest.mark.parametrize(
    "choices",
    [
        ("logger=none",),
        pytest.param(("logger=tensorboard",), marks=pytest.mark.run),
        pytest.param(("logger=none", "report=true"), marks=pytest.mark.run),
    ],
)
def test_a_disk_that_is_full_in_mid_run_or_after_all_the_training(
    train: Command, tmp_path: Path, choices: tuple[str, ...]
) -> None:
    is_at_end = "report=true" in choices
    undisturbed = (*TINY, *NOISE, "freezing=full", "freezing.epochs=3", "caching=off", *choices)
    with watched(Full(tested=is_at_end)):
        code, printed = in_fork(main, *undisturbed, f"run_folder={tmp_path}/run")
    assert code == 1
    assert "Traceback" not in printed
    file = {"logger=tensorboard": "", "report=true": "/weights.safetensors"}.get(choices[-1], "/metrics.csv")
    last = printed.splitlines()[-1]
    assert last == f"error: {tmp_path}/run{file}: {NO_ROOM}. To go on: python -m thaw.train resume={tmp_path}/run"
    assert printed.count("train.log cannot be written to any more") == 1
    assert not list(tmp_path.glob("run/*.partial"))
    require_same_end(train, last, undisturbed, tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "choices"),
    [(evaluate, ()), (predict, ("input={photos}", "num_workers=0")), (export, ("format=exported_program",))],
)
def test_a_disk_that_is_full_when_a_command_writes(
    train: Command, tmp_path: Path, command: Any, choices: tuple[str, ...]
) -> None:
    root = photos(tmp_path)
    colours = (*TINY, "data=image_folder", f"data.root={root}", "data.labels_per_class=null", "data.num_workers=0")
    assert train(*colours, "+backbone.channels=3", *FOUR_EPOCHS, f"run_folder={tmp_path}/run") is None
    before = set(tmp_path.rglob("*"))
    typed = [choice.format(photos=root) for choice in choices]
    code, printed = in_fork(command, f"run={tmp_path}/run", *typed, most_bytes=1)
    assert code == 1
    assert "Traceback" not in printed
    assert "File too large" in printed
    assert "output=..." in printed
    last = next(line for line in printed.splitlines() if line.startswith("error: "))
    assert last.startswith(f"error: {tmp_path}/run")
    assert not [path for path in {*tmp_path.rglob("*")} - before if path.is_file()]


def test_file_names_in_no_encoding(train: Command, tmp_path: Path) -> None:
    root = photos(tmp_path)
    odd, broken = (Path(os.fsdecode(os.fsencode(root) + b"/blue/" + name)) for name in (b"caf\xe9.png", b"cut\xe9.png"))
    try:
        shutil.copy(root / "blue/0.png", odd)
    except OSError:
        pytest.skip("this file system has no such names")
    colours = ("data=image_folder", f"data.root={root}", "data.num_workers=0")
    code, printed = in_fork(check, *colours)
    assert code == 0, printed
    choices = (*TINY, *colours, "data.labels_per_class=null", "+backbone.channels=3", *FOUR_EPOCHS, "report=true")
    assert train(*choices, f"run_folder={tmp_path}/run") is None
    broken.write_bytes(odd.read_bytes()[:100])
    code, printed = in_fork(predict, f"run={tmp_path}/run", f"input={root}", "num_workers=0", f"output={tmp_path}/new")
    assert code == 0, printed
    assert "skipped, 1 of 26" in printed
    with (tmp_path / "new.csv").open(encoding="utf-8", newline="") as table:
        rows = [row["path"] for row in csv.DictReader(table)]
    records = [json.loads(line)["path"] for line in (tmp_path / "new.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(records) == 25
    assert [path for path in records if not Path(path).is_file()] == [], "JSON has the very names"
    assert [path for path in rows if path not in records] == [str(odd).replace("\udce9", "\\udce9")]


def test_a_run_on_a_terminal_that_is_not_utf8(tmp_path: Path) -> None:
    shown = [choice for choice in TINY if "progress_bar" not in choice]
    code, printed = in_fork(main, *shown, *NOISE, "freezing=full", f"run_folder={tmp_path}/run", terminal="ascii")
    assert code == 0, printed
    assert "Traceback" not in printed
    assert "epoch 1/" in printed


def test_other_errors_are_no_faults_of_the_machine() -> None:
    assert fault(ValueError("out of memory")) is None
    assert fault(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert fault(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None
    assert fault(MemoryError(), keys="") == "out of memory: type num_workers=0, or a smaller batch_size"
