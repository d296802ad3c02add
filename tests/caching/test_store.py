import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import START_METHOD
from thaw.caching.entry import CacheEntry, Layout, Writer
from thaw.caching.store import RunProcesses, Store, entries, prune

KEY = "numbers-0123456789abcdef"
ROWS = torch.arange(300, dtype=torch.float32).reshape(100, 3)
PROCESSES: Any = multiprocessing.get_context(START_METHOD)
LAYOUT = {"rows": Layout(torch.float32, (100, 3)), "marks": Layout(torch.uint8, (100,))}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", budget_bytes=1e9)


def fill(write: Writer) -> None:
    for first in (50, 0):
        write("rows", first, ROWS[first : first + 50])
    write("marks", 0, torch.arange(100, dtype=torch.uint8))


def must_not_be_called(write: Writer) -> None:
    raise AssertionError("the entry exists already")


def stored(store: Store) -> CacheEntry:
    entry = store.get_or_write(KEY, {"what": "numbers"}, LAYOUT, fill)
    assert entry is not None
    return entry


def test_comes_back_as_it_was_written_and_is_written_once(store: Store) -> None:
    stored(store)
    entry = store.get_or_write(KEY, {}, LAYOUT, must_not_be_called)
    assert entry is not None
    assert torch.equal(entry.arrays["rows"], ROWS)
    assert torch.equal(entry.arrays["marks"], torch.arange(100, dtype=torch.uint8))
    assert entry.about["what"] == "numbers"


def test_people_can_open_it(store: Store) -> None:
    layout = {"rows": LAYOUT["rows"], "half": Layout(torch.bfloat16, (2, 2))}
    half = torch.tensor([[1.5, -2], [3e38, 0]], dtype=torch.bfloat16)
    store.get_or_write(KEY, {"what": "numbers"}, layout, lambda write: write("rows", 0, ROWS) or write("half", 0, half))  # type: ignore[func-returns-value]
    folder = store.path(KEY)
    assert sorted(file.name for file in folder.iterdir()) == ["about.json", "half.npy", "rows.npy"]
    assert np.array_equal(np.load(folder / "rows.npy"), ROWS.numpy())
    assert np.array_equal(np.load(folder / "half.npy"), half.view(torch.uint16).numpy())
    about = json.loads((folder / "about.json").read_text())
    assert about["about"] == {"what": "numbers"}
    assert {name: array["dtype"] for name, array in about["arrays"].items()} == {"rows": "float32", "half": "bfloat16"}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int32, torch.int64]
)
def test_types_and_empty_arrays(store: Store, dtype: torch.dtype) -> None:
    layout = {"rows": Layout(dtype, (2, 2)), "none": Layout(dtype, (0, 5)), "flat": Layout(dtype, (3,))}
    values = torch.tensor([[1.5, 2], [7, 0]]).to(dtype)
    entry = store.get_or_write(KEY, {}, layout, lambda write: write("rows", 0, values))
    assert entry is not None
    assert entry.arrays["rows"].dtype == dtype
    assert torch.equal(entry.arrays["rows"], values)
    assert entry.arrays["none"].shape == (0, 5)
    assert torch.equal(entry.arrays["flat"], torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize("file", ["about.json", "rows.npy", "marks.npy"])
@pytest.mark.parametrize("place", [0, 3, 15, 60, 100, 127, -30, -1])
def test_a_flipped_bit_anywhere_is_noticed(
    store: Store, file: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    stored(store)
    content = bytearray((store.path(KEY) / file).read_bytes())
    content[place] ^= 1
    (store.path(KEY) / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.open(KEY) is None
    assert "is damaged" in caplog.text
    assert entries(store.folder) == []
    assert torch.equal(stored(store).arrays["rows"], ROWS)


@pytest.mark.parametrize("file", ["about.json", "rows.npy"])
@pytest.mark.parametrize("length", [None, 0, 5, 128, 200])
def test_a_short_or_missing_file_is_noticed(store: Store, file: str, length: int | None) -> None:
    stored(store)
    if length is None:
        (store.path(KEY) / file).unlink()
    else:
        os.truncate(store.path(KEY) / file, length)
    assert store.open(KEY) is None
    assert torch.equal(stored(store).arrays["rows"], ROWS)


def test_a_file_in_place_of_the_folder_is_replaced(store: Store) -> None:
    store.folder.mkdir()
    store.path(KEY).write_bytes(b"no folder")
    assert torch.equal(stored(store).arrays["rows"], ROWS)


def test_an_interrupted_write_leaves_nothing_that_counts(store: Store) -> None:
    def interrupted(write: Writer) -> None:
        write("rows", 0, ROWS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_write(KEY, {}, LAYOUT, interrupted)
    assert entries(store.folder) == []
    assert torch.equal(stored(store).arrays["rows"], ROWS)


def test_a_killed_writer_is_followed_by_another(store: Store) -> None:
    begun = PROCESSES.Event()
    writer = PROCESSES.Process(target=_hang, args=(store, begun))
    writer.start()
    assert begun.wait(60)
    assert [entry.is_unfinished for entry in entries(store.folder)] == [True]
    assert prune(store.folder, 0) == []  # somebody is at work on it
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert store.open(KEY) is None
    assert torch.equal(stored(store).arrays["rows"], ROWS)
    assert [entry.path for entry in entries(store.folder)] == [store.path(KEY)]


def _hang(store: Store, begun: "multiprocessing.synchronize.Event") -> None:
    def hang(write: Writer) -> None:
        write("rows", 0, ROWS[:10])
        begun.set()
        time.sleep(600)

    store.get_or_write(KEY, {}, LAYOUT, hang)


def test_two_processes_make_it_once(store: Store, tmp_path: Path) -> None:
    at_once = PROCESSES.Barrier(3)
    writers = [PROCESSES.Process(target=_make_and_note, args=(store, tmp_path / "made", at_once)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "once\n"


def _make_and_note(store: Store, notes: Path, at_once: "multiprocessing.synchronize.Barrier") -> None:
    def noted(write: Writer) -> None:
        with notes.open("a") as file:
            file.write("once\n")
        fill(write)

    at_once.wait()
    entry = store.get_or_write(KEY, {}, LAYOUT, noted)
    assert entry is not None
    assert torch.equal(entry.arrays["rows"], ROWS)


def test_a_full_disk_is_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        assert store.get_or_write(KEY, {}, LAYOUT, must_not_be_called) is None
    assert "No space left on device" in caplog.text
    assert entries(store.folder) == []


def test_a_folder_that_cannot_be_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert Store(tmp_path / "file" / "cache", 1e9).get_or_write(KEY, {}, LAYOUT, fill) is None
    assert "not cached" in caplog.text


def test_the_least_recently_used_make_room(store: Store) -> None:
    size = stored(store).num_bytes
    prune(store.folder, 0)
    store.budget_bytes = 2.5 * size
    for number, key in enumerate(("a-0", "b-1")):
        store.get_or_write(key, {}, LAYOUT, fill)
        os.utime(store.path(key), (number, number))
    store.open("a-0")
    store.get_or_write("c-2", {}, LAYOUT, fill)
    assert {entry.path.stem for entry in entries(store.folder)} == {"a-0", "c-2"}
    assert [entry.path.stem for entry in prune(store.folder, 0)] == ["a-0", "c-2"]
    assert [path.name for path in store.folder.iterdir()] == ["locks"]


def test_an_open_entry_outlives_its_files(store: Store) -> None:
    entry = stored(store)
    prune(store.folder, 0)
    assert not entry.path.exists()
    assert torch.equal(entry.arrays["rows"], ROWS)


def test_nobody_sees_half_a_deleted_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(store)

    def killed(path: Path) -> None:
        (path / "rows.npy").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(store.folder, 0)
    assert [entry.is_unfinished for entry in entries(store.folder)] == [True]
    assert len(prune(store.folder, 0)) == 1
    assert entries(store.folder) == []


def test_other_folders_are_left_alone(store: Store) -> None:
    stored(store)
    (store.folder / "photos").mkdir()
    (store.folder / "photos" / "about.json").touch()
    assert len(prune(store.folder, 0)) == 1
    assert (store.folder / "photos" / "about.json").exists()


def rank(number: int, others: list[bool]) -> RunProcesses:
    """One of two ranks; `others`: what the other one answers, in turn."""
    return RunProcesses(number, 2, lambda true: others.pop(0) and true)


def test_a_failure_on_another_rank_is_one_on_all(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    # Asked: is it there, locked, held, there now, begun; then the other one cannot write its share.
    with caplog.at_level(logging.WARNING):
        assert store.get_or_write(KEY, {}, LAYOUT, fill, rank(0, [True] * 5 + [False, True])) is None
    assert "another process of this run" in caplog.text
    assert entries(store.folder) == []


def test_what_is_no_fault_of_the_disk_ends_the_run_on_all_ranks(store: Store) -> None:
    def broken(write: Writer) -> None:
        raise ValueError("numbers too large")

    with pytest.raises(ValueError, match="numbers too large"):
        store.get_or_write(KEY, {}, LAYOUT, broken, rank(0, [True] * 6 + [False]))
    with pytest.raises(RuntimeError, match="another process of this run"):
        store.get_or_write(KEY, {}, LAYOUT, fill, rank(0, [True] * 5 + [False, False]))


def test_an_entry_that_is_deleted_while_it_is_opened_is_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(store)
    load = np.load

    def gone(file: Path, **keywords: Any) -> Any:
        prune(store.folder, 0)
        return load(file, **keywords)

    monkeypatch.setattr(np, "load", gone)
    assert store.open(KEY) is None
