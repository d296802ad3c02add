"""Results that were computed once, kept under keys that are digests of all that they depend on.

An entry is whole or not there, and never changes. It may be deleted at any time: a process that has it open keeps it.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import Trainer

from thaw.caching.entry import CacheEntry, DamagedEntryError, Layout, Writer, allocate, seal, write_rows
from thaw.data.checked_files import CHECKED_FILES
from thaw.storage import CACHE_VARIABLE, UNFINISHED, cache_folder

log = logging.getLogger(__name__)

SUFFIX = ".arrays"
"""Suffix of the folder of an entry."""
ABOUT_CHECKED = {"what": "image files that were checked"}


@dataclass(frozen=True)
class RunProcesses:
    """The processes of one run, which all ask for the same entries in the same order. By default there is one."""

    rank: int = 0
    world_size: int = 1
    all: Callable[[bool], bool] = bool
    """Function: whether its argument is true on every rank. Collective: call on every rank."""

    @classmethod
    def of(cls, trainer: Trainer | None) -> "RunProcesses":
        """The processes of a trainer; a single one if there is no trainer."""
        if trainer is None:
            return cls()
        return cls(trainer.global_rank, trainer.world_size, trainer.strategy.reduce_boolean_decision)


class Store:
    """Cache entries in one folder. The least recently used ones are deleted to stay within `budget_bytes`."""

    def __init__(self, folder: Path, budget_bytes: float):
        self.folder, self.budget_bytes = folder, budget_bytes

    @classmethod
    def of_machine(cls, budget_gb: float) -> "Store":
        """The cache of this machine, with a budget in gigabytes."""
        return cls(cache_folder(), budget_gb * 1e9)

    def path(self, key: str) -> Path:
        """The folder of the entry with this key."""
        return self.folder / f"{key}{SUFFIX}"

    def open(self, key: str) -> CacheEntry | None:
        """The entry with this key, or None. A damaged one is deleted with a warning."""
        path = self.path(key)
        with suppress(OSError):
            os.utime(path)  # the time of last use; set first, since the check of a large entry takes seconds
        try:
            return CacheEntry.open(path)
        except DamagedEntryError as error:
            log.warning("the cache entry %s is damaged (%s): it is computed again", path, error)
            _delete(path)
        except OSError:  # not there, or not readable
            pass
        return None

    def get_or_write(
        self,
        key: str,
        about: Mapping[str, Any],
        layouts: Mapping[str, Layout],
        fill: Callable[[Writer], None],
        group: RunProcesses | None = None,
    ) -> CacheEntry | None:
        """The entry with this key; if there is none, it is written. Several runs that want it write it once.

        Args:
            key: Name of the entry; letters, then "-", then a digest.
            about: Description for people and for whoever reads the entry; plain JSON.
            layouts: Data type and shape of each array.
            fill: Writes the arrays. On several ranks each call writes a share of the rows.
            group: The processes of this run; all of them call this method.

        Returns:
            The entry, or None with a warning if the disk is full or cannot be written.
        """
        group = group or RunProcesses()
        try:
            entry = self.open(key)
            if group.all(entry is not None):
                return entry
            with self._locked(key, group):
                entry = self.open(key)  # another run may have written it meanwhile
                if not group.all(entry is not None):
                    self._write(key, about, layouts, fill, group)
                    entry = self.open(key)
            if not group.all(entry is not None):
                raise OSError(f"the processes do not see the same folder: set {CACHE_VARIABLE} to one that they share")
            return entry
        except OSError as error:
            reason = f"{error.strerror or error} ({self.folder})"
            log.warning("not cached: %s. The run goes on, and computes the same values again in each epoch", reason)
            return None

    def _write(
        self,
        key: str,
        about: Mapping[str, Any],
        layouts: Mapping[str, Layout],
        fill: Callable[[Writer], None],
        group: RunProcesses,
    ) -> None:
        unfinished = self.folder / f"{key}{UNFINISHED}"

        def begin() -> None:
            _delete(unfinished)  # left by a process that was killed
            prune(self.folder, self.budget_bytes - sum(layout.file_bytes for layout in layouts.values()))
            allocate(unfinished, layouts)

        def finish() -> None:
            seal(unfinished, about, layouts)
            _delete(self.path(key))
            unfinished.rename(self.path(key))

        is_first = group.rank == 0
        try:
            _on_all_ranks(group, begin if is_first else None)
            _on_all_ranks(group, partial(write_rows, unfinished, layouts, fill))
            _on_all_ranks(group, finish if is_first else None)
        except BaseException:
            if is_first:
                _delete(unfinished)
            raise

    @contextmanager
    def _locked(self, key: str, group: RunProcesses) -> Iterator[None]:
        """Hold the lock of a key on rank 0 and let the other ranks wait with it."""
        lock = _lock(self.path(key)) if group.rank == 0 else None
        acquire = partial(_acquire, lock, timeout=1) if lock is not None else None
        waiting = False
        try:
            while not group.all(_on_all_ranks(group, acquire) is not False):
                if not waiting:
                    log.info("another process is computing the same cache entry: waiting for it")
                waiting = True
            yield
        finally:
            if lock is not None:
                lock.release()


def entries(folder: Path) -> list[CacheEntry]:
    """All entries of a cache folder, also unfinished and damaged ones; the least recently used come first."""
    listed = []
    for path in (path for pattern in (f"*{SUFFIX}", f"*{UNFINISHED}", CHECKED_FILES) for path in folder.glob(pattern)):
        with suppress(OSError):  # deleted meanwhile
            entry = CacheEntry.listed(path)
            listed.append(replace(entry, about=ABOUT_CHECKED) if path.match(CHECKED_FILES) else entry)
    return sorted(listed, key=lambda entry: entry.last_used)


def prune(folder: Path, budget_bytes: float) -> list[CacheEntry]:
    """Delete the least recently used entries until the rest is within the budget; returns the deleted ones."""
    listed = entries(folder)
    total, deleted = sum(entry.num_bytes for entry in listed), []
    for entry in listed:
        if total > budget_bytes and not _is_being_written(entry) and _delete(entry.path):
            total -= entry.num_bytes
            deleted.append(entry)
    return deleted


def _delete(path: Path) -> bool:
    """Delete an entry; returns whether it is gone. It is renamed first, so that nobody opens half of it."""
    try:
        if path.suffix != UNFINISHED:
            path = path.rename(path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}"))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:  # Windows refuses while it is open
        return isinstance(error, FileNotFoundError)
    return True


def _lock(path: Path) -> FileLock:
    """The lock of an entry. Keys share 256 locks, because a lock file can never be deleted safely."""
    return FileLock(path.parent / "locks" / path.name.rpartition("-")[2][:2])


def _acquire(lock: FileLock, timeout: float) -> bool:
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    return True


def _is_being_written(entry: CacheEntry) -> bool:
    if not entry.is_unfinished:
        return False
    try:
        with _lock(entry.path).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _on_all_ranks(group: RunProcesses, action: Callable[[], Any] | None) -> Any:
    """Run `action` and return its result; raise on every rank if it fails on one, so that none waits for ever."""
    result, error = None, None
    try:
        result = action() if action is not None else None
    except Exception as caught:
        error = caught
    if not group.all(error is None):
        is_disk_error = group.all(error is None or isinstance(error, OSError))
        raise error or (OSError if is_disk_error else RuntimeError)("it failed in another process of this run")
    return result
