"""The processes that load."""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from thaw.config import build
from thaw.data.loader import BATCHES_IN_MEMORY, BatchLoader, init_worker, workers_that_fit
from thaw.types import BatchRequest, ImageSpec

PROGRAM = """
import sys, time
from torch.utils.data import DataLoader
from thaw.data.loader import init_worker

if __name__ == "__main__":
    loader = DataLoader(range(99), num_workers=2, worker_init_fn=init_worker, multiprocessing_context=sys.argv[1])
    batches = iter(loader)
    next(batches)
    print(*[worker.pid for worker in batches._workers], flush=True)
    time.sleep(999)
"""


def is_alive(pid: int) -> bool:
    """And no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_loader_processes_end_with_the_one_that_they_load_for(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, program, method], stdout=subprocess.PIPE, text=True) as loading:
        assert loading.stdout is not None
        workers = [int(pid) for pid in loading.stdout.readline().split()]
        assert len(workers) == 2
        assert all(is_alive(pid) for pid in workers)
        loading.kill()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a loader process outlives the run"
        time.sleep(0.05)


class OfParent:
    """Garbage in a cycle, as an earlier loader is. Notes the process that finalizes it."""

    def __init__(self, notes: Path):
        self.itself, self.notes = self, notes

    def __del__(self) -> None:
        with self.notes.open("a") as file:
            file.write(f"{os.getpid()}\n")


class Collects(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        gc.collect()
        return index


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is inherited where processes are spawned")
def test_garbage_of_the_parent_is_not_finalized_in_loader_processes(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    gc.disable()
    try:
        OfParent(notes)
        assert len(list(DataLoader(Collects(), num_workers=2, worker_init_fn=init_worker))) == 4
    finally:
        gc.enable()
    gc.collect()
    assert notes.read_text().split() == [str(os.getpid())]


def starts_without_collections(worker: int) -> None:
    assert not gc.isenabled()
    init_worker(worker)
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is inherited where processes are spawned")
def test_nor_is_it_before_it_is_frozen() -> None:
    loader = BatchLoader(Collects(), range(4), num_workers=2)
    loader.worker_init_fn = starts_without_collections
    assert len(list(loader)) == 4
    assert gc.isenabled()


@pytest.mark.parametrize(("free", "fit"), [(10**9, 8), (64 * 10**6, 2), (10**6, 0)])
def test_as_many_processes_as_shared_memory_has_room_for(free: int, fit: int) -> None:
    assert workers_that_fit(8, 5 * 10**6, free) == fit


def test_too_little_shared_memory_is_said(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = build.data(config("data.num_workers=2"))
    data.split()
    data.use_input_spec(ImageSpec(8, 1, (0.5,), (0.5,)))
    inputs = data.dataset("train")[BatchRequest([0], None)].inputs
    assert isinstance(inputs, torch.Tensor)
    of_a_process = data.batch_size * inputs.nbytes * BATCHES_IN_MEMORY
    monkeypatch.setattr("thaw.data.loader.free_shared_memory", lambda: of_a_process)
    assert data.raw_loader("train", []).num_workers == 1
    assert "1 loader processes in place of 2: shared memory (/dev/shm) has 0 MB left" in caplog.text
    monkeypatch.setattr("thaw.data.loader.free_shared_memory", lambda: 10**9)
    assert data.raw_loader("train", []).num_workers == 2


class OwnError(Exception):
    def __init__(self, number: int, what: str):
        super().__init__(f"{number} {what}")


class Raises(Dataset[Any]):
    def __getitem__(self, request: str) -> Any:
        if request == "unsendable":
            return lambda: None
        raise {"file": FileNotFoundError(2, "No such file", "x.png"), "own": OwnError(3, "apples")}[request]


def test_an_exception_of_a_loader_process_comes_whole_and_none_makes_the_run_wait() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        list(BatchLoader(Raises(), ["file"], num_workers=1))
    assert raised.value.filename == "x.png"
    assert "in __getitem__" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="OwnError: 3 apples"):
        list(BatchLoader(Raises(), ["own"], num_workers=1))
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(BatchLoader(Raises(), ["unsendable"], num_workers=1))
