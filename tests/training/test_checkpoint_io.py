"""The writer of checkpoints, stopped between any two of its steps."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thaw.manifest import is_intact, read_manifest
from thaw.training import checkpoint_io as durable
from thaw.training.checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO, newest_intact


class Stop(BaseException):
    pass


def save(folder: Path, step: int, name: str = LAST) -> None:
    AtomicCheckpointIO().save_checkpoint({"step": step, "weights": torch.full((50_000,), step)}, folder / name)


def step_of(file: Path | None) -> int:
    assert file is not None
    return torch.load(file, weights_only=True)["step"]


def steps_of_a_save(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> None:
    """`then` is told the number of each thing that the writer does to the disk, before it does it."""
    done = 0

    def counted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            then(done)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("replace", "fsync", "open"):
        counted(durable.os, name)  # type: ignore[attr-defined]


def test_at_every_step_of_a_save_there_is_a_whole_checkpoint(tmp_path: Path) -> None:
    stopped = 0
    for step in range(1, 1000):
        folder = tmp_path / str(step)
        for before in (0, 1):
            save(folder, before)

        def stop(done: int, step: int = step) -> None:
            if done == step:
                raise Stop

        with pytest.MonkeyPatch.context() as patch:
            steps_of_a_save(patch, stop)
            try:
                save(folder, 2)
            except Stop:
                stopped += 1
            else:
                break
        assert step_of(newest_intact(folder)) in (1, 2)
        # And again: names stand for what they stood for.
        with pytest.MonkeyPatch.context() as patch:
            steps_of_a_save(patch, stop)
            with pytest.raises(Stop):
                save(folder, 3)
        assert step_of(newest_intact(folder)) in (1, 2, 3)
        save(folder, 4)
        assert (step_of(folder / LAST), step_of(newest_intact(folder))) == (4, 4)
        assert all(is_intact(folder / name) for name in (LAST, PREVIOUS))
        assert {file.name for file in folder.iterdir()} == {LAST, PREVIOUS, "manifest.json"}
    assert stopped > 5
    assert step_of(tmp_path / str(step) / LAST) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_what_is_not_as_it_was_written_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    for step in range(3):
        save(tmp_path, step)
    save(tmp_path, 7, "best-phase1-epoch000.ckpt")
    for name, rest in ((LAST, 1), (PREVIOUS, 7)):
        file = tmp_path / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        if harm == "gone":
            file.unlink()
        else:
            file.write_bytes(content if harm == "flipped" else content[: len(content) // 2])
        assert step_of(newest_intact(tmp_path)) == rest
        assert harm == "gone" or f"{file} is damaged" in caplog.text
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "best-phase1-epoch000.ckpt")
    assert newest_intact(tmp_path) is None
    assert "best-phase1-epoch000.ckpt" not in read_manifest(tmp_path)


def test_a_full_disk_is_said_and_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 0)

    class Full(durable._HashingFile):
        def __init__(self, file: Any):
            super().__init__(SimpleNamespace(write=self.refuse))  # type: ignore[arg-type]

        def refuse(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "_HashingFile", Full)
    with pytest.raises(OSError, match="No space left") as error:
        save(tmp_path, 1)
    assert error.value.filename == f"{tmp_path}/{LAST}"
    assert step_of(newest_intact(tmp_path)) == 0
    assert {file.name for file in tmp_path.iterdir()} == {LAST, "manifest.json"}


def test_a_damaged_manifest_and_files_from_elsewhere_are_taken_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 0)
    (tmp_path / "manifest.json").write_text("{")
    assert step_of(newest_intact(tmp_path)) == 0
    assert "manifest.json is damaged" in caplog.text
    (tmp_path / "manifest.json").unlink()
    assert step_of(newest_intact(tmp_path)) == 0
    save(tmp_path, 1)
    assert (step_of(tmp_path / LAST), step_of(tmp_path / PREVIOUS)) == (1, 0)


def test_a_second_name_is_not_written_into(tmp_path: Path) -> None:
    save(tmp_path, 5, "best-phase1-epoch000.ckpt")
    os.link(tmp_path / "best-phase1-epoch000.ckpt", tmp_path / f"{LAST}.partial")  # a run was killed there
    save(tmp_path, 6)
    assert step_of(tmp_path / "best-phase1-epoch000.ckpt") == 5
