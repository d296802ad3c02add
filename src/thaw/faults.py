"""Faults of the machine in words: a lost loader process, no memory, a full disk. A traceback would say nothing more."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from thaw.errors import UserError

UNFINISHED = ".partial"
"""Suffix of a file that is being written."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors of a write that found no room."""


def fault(error: BaseException, keys: str = "data.") -> str | None:
    """Say what the machine lacks, and what to type; None if `error` is no fault of the machine.

    Args:
        error: what Python or a library raised.
        keys: what comes before `batch_size` and `num_workers` on the command line.
    """
    text = str(error)
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}. Make room on that disk" if error.errno in FULL else None
    less = f"type {keys}num_workers=0, or a smaller {keys}batch_size"
    if isinstance(error, RuntimeError) and "</torch_" in text:  # torch's name of a file there
        return (
            f"shared memory (/dev/shm) has no room for the batches of loader processes: {less}. Docker has more of it "
            "with --shm-size=8g"
        )
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        signal = re.search("killed by signal: (.+?)[.]", f"{text} {error.__cause__}")
        how = f" was ended by a signal ({signal[1]})" if signal else " ended"
        return f"a loader process{how}: out of memory? Fewer of them need less: {less}"
    reason = f" ({text.splitlines()[0][:100]})" if text else ""
    if isinstance(error, RuntimeError) and "out of memory" in text:  # torch.OutOfMemoryError, and older devices' own
        return f"the device is out of memory{reason}: type a smaller {keys}batch_size"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text):
        return f"out of memory{reason}: {less}"
    return None


@contextmanager
def naming_write(file: Path) -> Iterator[None]:
    """Name the file in the error of a write in the `with` block that failed: "<file>: No space left on device".

    Python tells of a full disk without a name. Libraries that write by themselves raise errors of their own, without
    the system's reason.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None and not str(error.filename).endswith(UNFINISHED):
            raise
        if (number := _system_error(error, file.parent)) is None:
            raise
        raise OSError(number, os.strerror(number), str(file)) from error


def _system_error(error: Exception, folder: Path) -> int | None:
    """Number of the system's error behind that of a library, which wrote into `folder`; None if there was none."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, UserError):
        return None
    if (found := re.search(r"os error (\d+)", str(error))) is not None:  # as Rust says it
        return int(found[1])
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**20))
    except OSError as reason:
        return reason.errno
    return None
