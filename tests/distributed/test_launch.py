"""Which processes are started, and how they end; the processes here are small scripts."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from thaw.distributed import launch
from thaw.distributed.environment import count_devices, launched_rank, node_and_local_rank
from thaw.distributed.launch import SIGNALS, ProcessesFailedError, start, starts_processes
from thaw.distributed.ranks import join

VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)


def asked(**trainer: Any) -> DictConfig:
    return OmegaConf.create({"resume": None, "trainer": {"accelerator": "cpu", "devices": 1, **trainer}})


@pytest.mark.parametrize(
    ("devices", "number"), [(1, 1), (3, 3), ("2", 2), ([0, 1], 2), ("0,1,", 2), ("auto", 1), (-1, 1), ("-1", 1)]
)
def test_devices_are_counted_as_lightning_reads_them(devices: Any, number: int) -> None:
    assert count_devices({"devices": devices, "accelerator": "cpu"}) == number


def test_processes_are_started_where_there_are_several_and_nobody_else_starts_them() -> None:
    assert not starts_processes(asked())
    assert starts_processes(asked(devices=2))
    assert not starts_processes(asked(devices=2, strategy="ddp_spawn"))
    with pytest.raises(ValueError, match=r"trainer.num_nodes=2: start the processes of all nodes by srun or torchrun"):
        starts_processes(asked(num_nodes=2))
    with pytest.raises(ValueError, match=r"trainer.devices=2 from Python"):
        join(asked(devices=2))


def test_a_run_that_is_continued_has_its_own_number_of_processes(tmp_path: Any) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {accelerator: cpu, devices: 2}")
    cfg = asked()
    cfg.resume = str(tmp_path)
    assert starts_processes(cfg)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "job"}, (1, 2)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, None),
    ],
)
def test_the_environment_says_who_this_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: tuple[int, int] | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == place


def test_a_job_of_slurm_that_lightning_does_not_understand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ValueError, match=r"`--ntasks-per-node=2`"):
        join(asked(devices=2))


def test_a_sweep_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "launched_rank", lambda: (0, 2))
    monkeypatch.setattr(launch.HydraConfig, "get", lambda: SimpleNamespace(mode=launch.RunMode.MULTIRUN))
    with pytest.raises(ValueError, match="-m starts the processes of each trial itself"):
        starts_processes(asked(devices=2))


def test_the_environment_says_which_machine_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_and_local_rank() == ("0", 0)
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert node_and_local_rank() == ("1", 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "3", "LOCAL_RANK": "4"}.items():
        monkeypatch.setenv(name, value)
    assert node_and_local_rank() == ("3", 4)


SCRIPT = """
import os, signal, sys, time
from thaw.distributed.ranks import leave_message
if os.environ["RANK"] == "1":
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("fails", "message", "code", "printed"),
    [
        ("sys.exit(3)", "process 1 of the 2 on this machine ended with exit code 3", 3, False),
        ("os.kill(os.getpid(), 9)", "process 1 of the 2 on this machine was ended by SIGKILL", 1, False),
        ("leave_message('why'); sys.exit(1)", "why", 1, True),
    ],
)
def test_where_one_fails_the_others_are_ended(
    capfd: pytest.CaptureFixture[str], fails: str, message: str, code: int, printed: bool
) -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in SIGNALS]
    with pytest.raises(ProcessesFailedError, match=message) as failed:
        start(["-c", SCRIPT + fails], num_processes=2)
    assert (failed.value.code, failed.value.printed) == (code, printed)
    assert [signal.getsignal(getattr(signal, name)) for name in SIGNALS] == before
    assert capfd.readouterr() == ("", ""), "the launcher itself prints nothing"


SAVES = """
import os, signal, sys
def save(number, frame):
    os.write(1, f"saved {os.environ['RANK']}\\n".encode())  # one call: two processes write
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGUSR1, save)
with open(sys.argv[1] + os.environ["RANK"], "w"):
    pass
if os.environ["RANK"] == "0":
    while not os.path.exists(sys.argv[1] + "1"):
        pass
    os.kill(os.getppid(), int(sys.argv[2]))
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_all_and_becomes_the_exit_code(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, number: int
) -> None:
    with pytest.raises(SystemExit) as leaving:
        start(["-c", SAVES, str(tmp_path / "ready"), str(int(number))], num_processes=2)
    assert leaving.value.code == 128 + number
    printed = capfd.readouterr()
    assert sorted(printed.out.splitlines()) == ["saved 0", "saved 1"]
    assert printed.err == ""


def test_a_trial_is_started_with_what_was_typed_and_in_its_folder_whatever_its_name() -> None:
    folder = r"/runs/it's mine\new, ${x}"
    typed = ["seed=${oc.env:SEED}", r'data.seed="\${x}"']
    hydra_config = OmegaConf.create({"overrides": {"hydra": [], "task": typed}, "job": {"config_name": "train"}})
    hydra_config.runtime = {"output_dir": None, "config_sources": []}
    hydra_config.runtime.output_dir = folder.replace("${", r"\${")
    *arguments, last = launch._trial_arguments(hydra_config)
    assert arguments == ["--config-name", "train", *typed]
    value = OverridesParser.create().parse_override(last).value()
    assert OmegaConf.create({"run_folder": value}).run_folder == folder
