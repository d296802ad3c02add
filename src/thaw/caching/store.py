"""What was computed once, as files whose names are digests of all that their values depend on.

A file is there whole or not at all, and never changes. So it may be deleted at any time: whoever has it open keeps it.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from thaw.caching.file import DamagedFileError, FilePlan, Kept, Layout, Writer, about, begin, finish, opened, write
from thaw.errors import UserError
from thaw.storage import cache_folder

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "THAW_CACHE"
SUFFIX, UNFINISHED = ".thaw", ".unfinished"
CHECKED = "checked-*.json"
"""Files that say which images were found whole. `*`: a digest of the folder that the images are in."""


class ProcessGroup(Protocol):
    """The processes of a run, which all ask for the same files in the same order."""

    rank: int
    world_size: int

    def all(self, true: bool) -> bool:
        """Whether it is so on every rank; waits for the others."""


class SingleProcess:
    rank, world_size = 0, 1

    def all(self, true: bool) -> bool:
        return true


class Store:
    """The files of one folder. `budget_bytes`: those used least recently make room for new ones."""

    def __init__(self, folder: Path, budget_bytes: float):
        self.folder, self.budget_bytes = folder, budget_bytes

    @classmethod
    def of_machine(cls, budget_gb: float) -> "Store":
        if not isinstance(budget_gb, (int, float)) or not budget_gb >= 0:
            raise UserError(f"caching.budget_gb is a number of gigabytes from 0 on, not {budget_gb}")
        return cls(cache_folder(), budget_gb * 1e9)

    def get(
        self,
        key: str,
        about: Mapping[str, Any],
        arrays: Mapping[str, Layout],
        fill: Callable[[Writer], None],
        together: ProcessGroup | None = None,
    ) -> Kept | None:
        """The file of that key; `fill` makes it where there is none. None, with a warning, where it cannot be kept.

        Processes that want the same file make it once. Those of one run make it together: on each rank `fill` writes
        a share.
        """
        together = together or SingleProcess()
        try:
            kept = self.open(key)
            if not together.all(kept is not None):
                kept = self._made(key, FilePlan.of(about, arrays), fill, together)
            return kept
        except OSError as error:
            reason = f"{error.strerror or error} ({self.folder})"
            log.warning("not kept: %s. The run goes on, and computes in each epoch what it could have kept", reason)
            return None

    def open(self, key: str) -> Kept | None:
        """None where there is no such file, or a damaged one, which is deleted."""
        path = self.path(key)
        with suppress(OSError):
            os.utime(path)  # when it was last used: before the check, which takes seconds where it is large
        try:
            return opened(path)
        except DamagedFileError as error:
            log.warning("%s is damaged (%s): it is made again", path, error)
            with suppress(OSError):
                path.unlink()
        except OSError:  # none there, or none that may be read
            pass
        return None

    def path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _made(self, key: str, plan: FilePlan, fill: Callable[[Writer], None], together: ProcessGroup) -> Kept:
        lock = self._locked(key, together)
        try:
            kept = self.open(key)  # another process may have made it meanwhile
            if not together.all(kept is not None):
                self._make(key, plan, fill, together)
                kept = self.open(key)
        finally:
            if lock is not None:
                lock.release()
        if not together.all(kept is not None):
            raise OSError(f"not all processes see the folder: set {FOLDER_VARIABLE} to one that they share")
        assert kept is not None
        return kept

    def _make(self, key: str, plan: FilePlan, fill: Callable[[Writer], None], together: ProcessGroup) -> None:
        unfinished = self.path(key).with_suffix(UNFINISHED)
        first = together.rank == 0
        try:
            _everywhere(together, partial(self._begin, unfinished, plan) if first else None)
            _everywhere(together, partial(write, unfinished, plan, fill))
            _everywhere(together, partial(self._finish, unfinished, key) if first else None)
        except BaseException:
            if first:
                with suppress(OSError):
                    unfinished.unlink()
            raise

    def _begin(self, unfinished: Path, plan: FilePlan) -> None:
        unfinished.unlink(missing_ok=True)  # of a process that was killed
        prune(self.folder, self.budget_bytes - plan.num_bytes)
        begin(unfinished, plan)

    def _finish(self, unfinished: Path, key: str) -> None:
        finish(unfinished)
        os.replace(unfinished, self.path(key))

    def _locked(self, key: str, together: ProcessGroup) -> FileLock | None:
        """Held by rank 0; the others wait with it."""
        lock = FileLock(_lock_path(self.path(key))) if together.rank == 0 else None
        waits = False
        while True:
            held = _everywhere(together, partial(_try_to_hold, lock))
            if together.all(held):
                return lock
            if not waits:
                log.info("another process is at work on the same: waiting for it")
                waits = True


def _try_to_hold(lock: FileLock | None) -> bool:
    try:
        if lock is not None:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)
        return True
    except Timeout:
        return False


def _everywhere(together: ProcessGroup, action: Callable[[], Any] | None) -> Any:
    """Do it, and raise on every rank where it fails on one: none is left waiting for another."""
    result: Any = None
    error: Exception | None = None
    try:
        result = action() if action is not None else None
    except Exception as caught:
        error = caught
    if not together.all(error is None):
        disk = together.all(error is None or isinstance(error, OSError))
        raise error or (OSError if disk else RuntimeError)("it failed in another process of this run")
    return result


@dataclass(frozen=True)
class Entry:
    """A file as `thaw.cache` lists it."""

    path: Path
    num_bytes: int
    used: float
    """When last, seconds since 1970."""
    about: Mapping[str, Any]
    """Empty where it is unfinished or damaged."""


def entries(folder: Path) -> list[Entry]:
    """Those used least recently come first."""
    found = []
    for path in (path for names in (f"*{SUFFIX}", f"*{UNFINISHED}", CHECKED) for path in folder.glob(names)):
        with suppress(FileNotFoundError):  # deleted meanwhile
            status = path.stat()
            found.append(Entry(path, status.st_size, status.st_mtime, _about(path)))
    return sorted(found, key=lambda entry: entry.used)


def prune(folder: Path, budget_bytes: float) -> list[Entry]:
    """Delete those used least recently until the rest is within the budget; gives what was deleted."""
    files = entries(folder)
    total, deleted = sum(entry.num_bytes for entry in files), []
    for entry in files:
        if total > budget_bytes and not (entry.path.suffix == UNFINISHED and _in_the_making(entry.path)):
            with suppress(OSError):  # Windows keeps what is open
                entry.path.unlink()
                total -= entry.num_bytes
                deleted.append(entry)
    return deleted


def _lock_path(path: Path) -> Path:
    """One for many keys: they are never deleted, for who waits for one must find the same."""
    return path.parent / "locks" / path.stem.rpartition("-")[2][:2]


def _in_the_making(unfinished: Path) -> bool:
    try:
        with FileLock(_lock_path(unfinished)).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _about(path: Path) -> Mapping[str, Any]:
    if path.suffix == UNFINISHED:
        return {}
    if path.match(CHECKED):
        return {"what": "images that were found whole"}
    try:
        return about(path)
    except (OSError, DamagedFileError):
        return {}
