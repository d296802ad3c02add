"""Which trial of a search this process works on, while others may work on others: folders are claimed by locks."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from thaw.errors import UserError
from thaw.manifest import replacing
from thaw.runs.files import LOCK_FILE, OVERRIDES_FILE
from thaw.runs.trials import UNFINISHED, Trial, read_trials
from thaw.sweeping.study import Study

CLAIM_FILE = ".claim"
"""Locked while a process works on a trial. The run itself, which may be on another machine, locks `LOCK_FILE`."""


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on."""

    number: int
    folder: Path
    overrides: list[str]
    """Of the keys that are searched over."""


@contextmanager
def claimed(sweep: Path, most: int, study: Study) -> Iterator[Claim | None]:
    """Claim the first trial below number `most` that has not ended and that nobody works on, and hold it.

    Its folder is made if need be. A lock falls with the process that holds it, so a trial that was killed is free.

    Args:
        sweep: folder of the search.
        most: number of trials wanted.
        study: gives the values of a new trial.

    Yields:
        The claim; None if all trials have ended or are worked on.

    Raises:
        UserError: the file system has no locks.
    """
    with ExitStack() as held:
        with locked(sweep / LOCK_FILE):
            trials = {int(trial.name): trial for trial in read_trials(sweep) if trial.name.isdigit()}
            free = (n for n in range(most) if n not in trials or trials[n].state == UNFINISHED)
            number = next((n for n in free if _held(sweep / str(n), held)), None)
            found = None if number is None else _claim(sweep / str(number), trials, study)
        yield found


def _held(folder: Path, held: ExitStack) -> bool:
    """Hold a trial, if nobody else does."""
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / CLAIM_FILE)
    if not _acquired(lock):
        return False
    if is_locked(folder / LOCK_FILE):  # by its run, whose worker is gone
        lock.release()
        return False
    held.callback(lock.release)
    return True


def _claim(folder: Path, trials: Mapping[int, Trial], study: Study) -> Claim:
    """The claim on a trial that is held: what its folder says, or else values that are suggested and written there."""
    number = int(folder.name)
    known = {n: trial for n, trial in trials.items() if trial.overrides}
    if number in known:
        return Claim(number, folder, study.chosen(known[number]))
    overrides = study.suggest(number, list(known.values()))
    with replacing(folder / OVERRIDES_FILE) as temporary:
        temporary.write_text(json.dumps(overrides), encoding="utf-8")
    return Claim(number, folder, overrides)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock, for which others may have to wait."""
    try:
        with FileLock(file):
            yield
    except NotImplementedError as error:
        raise UserError(
            f"{file} cannot be locked, and workers would do the same trials: name a folder on another disk, "
            f"hydra.sweep.dir=..."
        ) from error


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock."""
    lock = FileLock(file)
    if file.exists() and not _acquired(lock):
        return True
    lock.release()
    return False


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
