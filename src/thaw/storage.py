"""Files that are written whole or not at all, digests, and the location of the cache."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from thaw.errors import UserError

CACHE_VARIABLE = "THAW_CACHE"
"""Environment variable that names the cache folder."""
UNFINISHED = ".partial"
"""Suffix of a file that is being written."""


def cache_folder() -> Path:
    """The cache folder of this machine: `$THAW_CACHE`, or `~/.cache/thaw`."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/thaw").expanduser()


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield a temporary name to write under, and rename it to `file`: a reader sees the old file or the new one.

    Raises OSError like `naming`; nothing is left of the temporary file then.
    """
    temporary = file.with_name(f"{file.name}.{os.getpid()}{UNFINISHED}")
    try:
        with naming(file):
            yield temporary
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(file: Path) -> Iterator[None]:
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


def write_atomically(file: Path, text: str) -> None:
    """Write `text` as UTF-8, see `written_whole`."""
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # file names may be in no encoding


def require_writable(folder: Path) -> None:
    """Make the folder of a command's `output`. Raises UserError if files cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): name another place, output=...") from error


def digest(*parts: str | bytes | memoryview) -> str:
    """BLAKE2b over the parts and their lengths: 32 hexadecimal digits."""
    state = blake2b(digest_size=16)
    for part in parts:
        content = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as a buffer, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def digest_of_tensors(values: Tensor | Mapping[str, Tensor]) -> str:
    """Digest of type, shape and values of a tensor, or of every tensor of a mapping with its name."""
    if isinstance(values, Tensor):
        return digest(f"{values.dtype} {tuple(values.shape)}", tensor_bytes(values))
    return digest(*(digest(name) + digest_of_tensors(values[name]) for name in sorted(values)))
