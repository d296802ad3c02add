"""Whole commands of several processes: one folder, one message, and nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from tests.conftest import TINY
from tests.test_runs import REPOSITORY, typed

pytestmark = pytest.mark.run

SHORT = [*TINY, "freezing=full", "freezing.epochs=2"]
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
BROKEN = (
    *SHORT,
    *TWO,
    "caching=off",
    "trainer.num_sanity_val_steps=0",
    "data._target_=tests.distributed.broken.Broken",
    "data.augment=light",
)
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))


@pytest.fixture(autouse=True)
def tests_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]))


def processes_of(folder: Path) -> list[str]:
    """That still run, of those that were started for it."""
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"run_folder={folder}" in line]


def the_only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert {"accuracy/val", "accuracy/test"} <= metrics.keys()
    assert len((run / "train.log").read_text().split("stages, input to output")) == 2
    return run


def test_two_processes_write_one_folder_and_print_once(tmp_path: Path) -> None:
    printed = typed(tmp_path, "-m", "thaw.train", *SHORT, *TWO)
    assert printed.count("run folder: ") == 1
    run = the_only_run(tmp_path)
    confusion = (run / "confusion_test.csv").read_text().splitlines()[1:]
    assert sum(int(n) for line in confusion for n in line.split(",")[1:]) == 270, "each sample is tested once"
    # It goes on in as many processes, whatever is typed.
    before = (run / "metrics.json").read_text()
    again = typed(tmp_path, "-m", "thaw.train", f"resume={run}", "trust=true")
    assert again.count("again: python -m thaw.evaluate") == 1
    assert json.loads((run / "metrics.json").read_text())["order"] == json.loads(before)["order"]
    typed(tmp_path, "-m", "thaw.evaluate", f"run={run}", "trust=true")
    evaluated = json.loads((run / "evaluate_test.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert evaluated == pytest.approx({name: metrics[name] for name in evaluated}, abs=1e-6)


def test_each_trial_of_a_search_has_two_processes(tmp_path: Path) -> None:
    words = ("sweep=search", "hydra.sweeper.n_trials=3", "callbacks.pruning.others=1", "freezing.epochs=3")
    space = (
        "optimizer.lr=choice(1e-9,1e-2)",
        "optimizer.weight_decay=0",
        "head.dropout=0",
        "hydra/sweeper/sampler=grid",
    )
    typed(tmp_path, "-m", "thaw.train", "-m", *SHORT[:-1], *TWO, *words, *space)
    ended = {"metrics.json", "pruned.json"}
    folders = {file.parent.name for file in (tmp_path / "runs/search").glob("*/*.json") if file.name in ended}
    assert folders == {"0", "1"}


@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_on_one_machine_or_two(tmp_path: Path, nodes: int) -> None:
    here = 2 // nodes
    endpoint = f"--rdzv-endpoint=localhost:{get_free_port()}"
    rendezvous = ("--rdzv-backend=c10d", endpoint, "--rdzv-id=thaw") if nodes > 1 else ()
    choices = (*SHORT, *TWO, f"trainer.devices={here}", f"trainer.num_nodes={nodes}")
    command = [TORCHRUN, f"--nnodes={nodes}", f"--nproc-per-node={here}", *rendezvous, "-m", "thaw.train", *choices]
    agents = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(nodes)]
    printed = "".join(agent.communicate(timeout=300)[0] for agent in agents)
    assert [agent.returncode for agent in agents] == [0] * nodes
    assert printed.count("run folder: ") == 1
    the_only_run(tmp_path)


def test_other_numbers_of_processes_than_the_trainer_s_are_refused(tmp_path: Path) -> None:
    command = [TORCHRUN, "--nproc-per-node=2", "-m", "thaw.train", *SHORT, *TWO, "trainer.devices=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode
    assert "make 1 processes, but 2 were started: give torchrun --nproc-per-node=1" in done.stderr
    assert done.stderr.count("error: trainer.devices=1") == 1  # torchrun quotes it in its summary


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "error: a sample cannot be read. To go on: "),
        ("build", "error: it cannot be built here\n"),
        ("infinite", "of 2: the loss is nan in epoch 1, train batch 0"),
        ("die", ""),
    ],
)
def test_an_error_of_one_process_ends_all_with_one_message(tmp_path: Path, how: str, message: str, rank: int) -> None:
    started = time.monotonic()
    folder = tmp_path / "run"
    wrong = (f"+data.rank={rank}", f"+data.how={how}")
    said = typed(tmp_path, "-m", "thaw.train", *BROKEN, *wrong, f"run_folder={folder}", code=1)
    assert said.count("error: ") == 1
    assert message in said
    assert not processes_of(folder)
    assert time.monotonic() - started < 100
    if how == "infinite":
        assert "the loss is nan" in (folder / "train.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_nobody_outlives_the_command(tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    words = (*SHORT, *TWO, "freezing.epochs=100000", "callbacks.early_stopping=null", f"run_folder={folder}")
    with subprocess.Popen(
        [sys.executable, "-m", "thaw.train", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run behind &
    ) as command:
        try:
            while not (folder / "checkpoints/last.ckpt").exists():
                time.sleep(0.2)
                assert command.poll() is None
            assert len(processes_of(folder)) == 3
            command.send_signal(number)
            assert command.wait(timeout=60) == code
        finally:
            command.kill()
    deadline = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_of(folder)
    assert (folder / "train.log").read_text().count(": saved and stopped in epoch ") == (number != signal.SIGKILL)


def test_a_fault_of_the_program_keeps_its_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "thaw.train",
        *BROKEN,
        "+data.rank=1",
        "+data.how=crash",
        f"run_folder={tmp_path}/run",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "KeyError: 'a fault of the program'" in done.stderr


def test_each_trial_of_a_sweep_starts_its_processes(tmp_path: Path) -> None:
    words = ("-m", *BROKEN, "+data.rank=1", "+data.how=none,raise", f"hydra.sweep.dir={tmp_path}/sweep of two")
    command = [sys.executable, "-m", "thaw.train", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("trial 1 failed: a sample cannot be read") == 1
    sweep = tmp_path / "sweep of two"
    assert "| 0 | none | ok |" in (sweep / "summary.md").read_text()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert "1 of 2 trials failed" in done.stdout


def test_one_process_of_a_machine_downloads_and_the_others_wait(tmp_path: Path) -> None:
    downloads = ("data=torchvision_dataset", "data._target_=tests.distributed.downloaded.data", "data.name=Counted")
    choices = (*TINY, *downloads, f"data.root={tmp_path}", "data.download=true", "freezing=head_only")
    typed(tmp_path, "-m", "thaw.train", *choices, *TWO, "freezing.epochs=1", f"run_folder={tmp_path}/run")
    assert (tmp_path / "downloads.txt").read_text().splitlines() == ["process 0"] * 2, "train and test"


def test_the_drift_script_shows_what_docs_say(tmp_path: Path) -> None:
    printed = typed(tmp_path, str(REPOSITORY / "scripts/ddp_drift.py"), "--labels", "10")
    rows = [
        [float(cell) for cell in line.split("|")[2:-1]] for line in printed.splitlines() if line[:3] in ("| t", "| L")
    ]
    between, to_one, lightning = rows
    assert between == [0.0] * 5
    assert max(to_one) <= 1e-5
    assert min(lightning[1:]) > 1e-4
