"""What is to be started, from the settings and the environment alone."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from thaw.distributed import launch
from thaw.distributed.environment import PARENT_VARIABLE, count_devices, place
from thaw.distributed.launch import ProcessesFailedError, starts_processes
from thaw.distributed.ranks import join

VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME", PARENT_VARIABLE, "MASTER_ADDR", "MASTER_PORT")


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
    ("variables", "found"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "job"}, (1, 2)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, None),
        ({PARENT_VARIABLE: "1", "RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
    ],
)
def test_the_environment_says_who_this_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: tuple[int, int] | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert place() == found


def test_a_job_of_slurm_that_lightning_does_not_understand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ValueError, match=r"`--ntasks-per-node=2`"):
        join(asked(devices=2))


def test_a_sweep_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "place", lambda: (0, 2))
    monkeypatch.setattr(launch.HydraConfig, "get", lambda: SimpleNamespace(mode=launch.RunMode.MULTIRUN))
    with pytest.raises(ValueError, match="-m starts the processes of each trial itself"):
        starts_processes(asked(devices=2))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit(3)", "process 1 of the 2 on this machine ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "process 1 of the 2 on this machine was ended by SIGKILL"),
        (
            "import json, os, sys; json.dump(dict(message='why', told=False), open(os.environ['F'], 'w')); sys.exit(1)",
            "why",
        ),
    ],
)
def test_where_one_fails_the_others_are_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, script: str, message: str
) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    file = tmp_path / "failure.json"
    wait = "import os, time\nif os.environ['N'] == '1': time.sleep(600)\n"
    variables = [{"N": str(number), "F": str(file)} for number in range(2)]
    with pytest.raises(ProcessesFailedError, match=message) as failed:
        launch._run_together([launch.sys.executable, "-c", wait + script], variables, file)
    assert failed.value.code == (3 if "code 3" in message else 1)
