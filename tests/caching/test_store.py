import errno
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from thaw.caching.file import Layout, Writer
from thaw.caching.store import Kept, Store, entries, prune

KEY = "numbers-0123456789abcdef"
ROWS = torch.arange(300, dtype=torch.float32).reshape(100, 3)
LAYOUT = {"rows": Layout(torch.float32, (100, 3)), "marks": Layout(torch.uint8, (100,))}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", budget_bytes=1e9)


def fill(write: Writer) -> None:
    for first in (50, 0):
        write("rows", first, ROWS[first : first + 50])
    write("marks", 0, torch.arange(100, dtype=torch.uint8))


def must_not_be_called(write: Writer) -> None:
    raise AssertionError("it was there already")


def made(store: Store) -> Kept:
    kept = store.get(KEY, {"what": "numbers"}, LAYOUT, fill)
    assert kept is not None
    return kept


def test_comes_back_as_it_was_written_and_is_made_once(store: Store) -> None:
    made(store)
    again = store.get(KEY, {}, LAYOUT, must_not_be_called)
    assert again is not None
    assert torch.equal(again.arrays["rows"], ROWS)
    assert torch.equal(again.arrays["marks"], torch.arange(100, dtype=torch.uint8))
    assert again.about["what"] == "numbers"


def test_bfloat16_and_empty_arrays(store: Store) -> None:
    layout = {"rows": Layout(torch.bfloat16, (2, 2)), "none": Layout(torch.float32, (0, 5))}
    values = torch.tensor([[1.5, -2], [3e38, 0]], dtype=torch.bfloat16)
    kept = store.get(KEY, {}, layout, lambda write: write("rows", 0, values))
    assert kept is not None
    assert torch.equal(kept.arrays["rows"], values)
    assert kept.arrays["none"].shape == (0, 5)


@pytest.mark.parametrize("place", [0, 3, 15, 25, 40, 90, 4095, 4096, 5000, -1])
def test_a_flipped_byte_anywhere_is_noticed(store: Store, place: int, caplog: pytest.LogCaptureFixture) -> None:
    made(store)
    content = bytearray(store.path(KEY).read_bytes())
    content[place] ^= 1
    store.path(KEY).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.open(KEY) is None
    assert "is damaged" in caplog.text
    assert torch.equal(made(store).arrays["rows"], ROWS)


@pytest.mark.parametrize("length", [0, 5, 20, 30, 4096, 5000, 12287])
def test_a_short_file_is_noticed(store: Store, length: int) -> None:
    made(store)
    os.truncate(store.path(KEY), length)
    assert store.open(KEY) is None
    assert torch.equal(made(store).arrays["rows"], ROWS)


def test_an_interrupted_write_leaves_nothing_that_counts(store: Store) -> None:
    def interrupted(write: Writer) -> None:
        write("rows", 0, ROWS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(KEY, {}, LAYOUT, interrupted)
    assert entries(store.folder) == []
    assert torch.equal(made(store).arrays["rows"], ROWS)


def test_a_killed_writer_is_followed_by_another(store: Store) -> None:
    begun = multiprocessing.get_context("spawn").Event()
    writer = multiprocessing.get_context("spawn").Process(target=_hang, args=(store, begun))
    writer.start()
    assert begun.wait(60)
    assert [entry.path.suffix for entry in entries(store.folder)] == [".unfinished"]
    assert prune(store.folder, 0) == []  # somebody is at work on it
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert store.open(KEY) is None
    assert torch.equal(made(store).arrays["rows"], ROWS)
    assert [entry.path for entry in entries(store.folder)] == [store.path(KEY)]


def _hang(store: Store, begun: "multiprocessing.synchronize.Event") -> None:
    def hang(write: Writer) -> None:
        write("rows", 0, ROWS[:10])
        begun.set()
        time.sleep(600)

    store.get(KEY, {}, LAYOUT, hang)


def test_two_processes_make_it_once(store: Store, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    at_once = spawn.Barrier(3)
    writers = [spawn.Process(target=_make_and_note, args=(store, tmp_path / "made", at_once)) for _ in range(3)]
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
    kept = store.get(KEY, {}, LAYOUT, noted)
    assert kept is not None
    assert torch.equal(kept.arrays["rows"], ROWS)


def test_a_full_disk_is_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY, {}, LAYOUT, must_not_be_called) is None
    assert "No space left on device" in caplog.text
    assert entries(store.folder) == []


def test_a_folder_that_cannot_be_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert Store(tmp_path / "file" / "cache", 1e9).get(KEY, {}, LAYOUT, fill) is None
    assert "not kept" in caplog.text


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    size = 3 * 4096  # header, rows, marks
    store = Store(tmp_path, budget_bytes=2.5 * size)
    for number, key in enumerate(("a-0", "b-1")):
        store.get(key, {}, LAYOUT, fill)
        os.utime(store.path(key), (number, number))
    store.open("a-0")
    store.get("c-2", {}, LAYOUT, fill)
    assert {entry.path.stem for entry in entries(tmp_path)} == {"a-0", "c-2"}
    assert [entry.path.stem for entry in prune(tmp_path, 0)] == ["a-0", "c-2"]


def test_what_is_open_outlives_its_file(store: Store) -> None:
    kept = made(store)
    prune(store.folder, 0)
    assert torch.equal(kept.arrays["rows"], ROWS)


class Rank:
    """One of two ranks, played one after the other: what the other one says is given."""

    world_size = 2

    def __init__(self, rank: int, others: list[bool]):
        self.rank, self.others = rank, others

    def all(self, true: bool) -> bool:
        return self.others.pop(0) and true


def test_a_failure_on_another_rank_is_one_on_all(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    # Asked: is it there, locked, held, there now, begun; then the other one cannot write its share.
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY, {}, LAYOUT, fill, Rank(0, [True] * 5 + [False, True])) is None
    assert "another process of this run" in caplog.text
    assert entries(store.folder) == []


def test_what_is_no_fault_of_the_disk_ends_the_run_on_all_ranks(store: Store) -> None:
    def broken(write: Writer) -> None:
        raise ValueError("numbers too large")

    with pytest.raises(ValueError, match="numbers too large"):
        store.get(KEY, {}, LAYOUT, broken, Rank(0, [True] * 6 + [False]))
    with pytest.raises(RuntimeError, match="another process of this run"):
        store.get(KEY, {}, LAYOUT, fill, Rank(0, [True] * 5 + [False, False]))


def test_a_file_that_goes_while_it_is_opened_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store)
    from_file = torch.from_file

    def gone(name: str, *args: object, **keywords: object) -> torch.Tensor:
        os.unlink(name)
        return from_file(name, *args, **keywords)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(torch, "from_file", gone)
    assert store.open(KEY) is None


@pytest.mark.parametrize("budget", ["all", None, -1])
def test_a_budget_that_cannot_be(budget: float) -> None:
    with pytest.raises(ValueError, match=f"caching.budget_gb is a number of gigabytes from 0 on, not {budget}"):
        Store.of_machine(budget)
