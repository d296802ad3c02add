"""What `thaw.doctor` says about a machine."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY
from thaw import doctor

Config = Callable[..., DictConfig]


def test_libraries_that_are_known_to_fail_or_missing_come_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, faults = doctor.libraries()
    assert any(line.startswith("torch ") for line in fit)
    assert faults == []
    needed = ["lightning>=2.6.6", "absent-library>=1", "absent-extra; extra == 'text'", "ruff<0; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "_installed", {"lightning": "2.6.1"}.get)
    fit, faults = doctor.libraries()
    assert fit == []
    assert faults == [
        "lightning 2.6.1 is known to fail: pip install 'lightning>=2.6.6'",
        "absent-library is missing: pip install 'absent-library>=1'",
    ]


def test_what_is_scarce_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    facts = dict(doctor.machine())
    assert f"{os.cpu_count()}: " in facts["cores"]
    assert str(cache_folder) in facts["cache"]
    assert str(tmp_path / "runs") in facts["runs"]
    monkeypatch.setattr("thaw.data.loader.free_shared_memory", lambda: 64 * 2**20)
    monkeypatch.setattr(doctor, "LITTLE_DISK", float("inf"))
    facts = dict(doctor.machine())
    assert "little for loader processes, in Docker --shm-size=8g" in facts["/dev/shm"]
    assert facts["runs"].endswith("free: little")


@pytest.mark.parametrize("rates", [(50.0, 900.0), (900.0, 50.0)])
def test_the_slower_of_loading_and_training_is_the_limit(
    config: Config, rates: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, training = rates
    monkeypatch.setattr(doctor, "_loading_rate", lambda data, batches: (loading, []))
    monkeypatch.setattr(doctor, "_training_rate", lambda *parts: training)
    said = doctor.speeds(config(*TINY[:2], *NOISE[:1], name="doctor"))
    assert f"│ {loading:,.0f} samples a second" in said
    limit = "loading is the limit" if loading < training else "the network is the limit"
    assert limit in said


def test_batches_are_loaded_and_trained_on(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    sys.argv = ["thaw.doctor", *TINY[:2], *NOISE[:1], "batches=2"]
    doctor.main()
    printed = capsys.readouterr().out
    assert "│ Python" in printed
    assert "training on" in printed
    assert "is the limit" in printed
