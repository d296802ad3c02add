"""Files that are written whole or not at all, digests, and the location of the cache."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from thaw.errors import UserError
from thaw.faults import FULL, UNFINISHED, naming_write

CACHE_VARIABLE = "THAW_CACHE"
"""Environment variable that names the cache folder."""
ANOTHER_OUTPUT = "name another place, output=..."
"""Advice of commands that take `output`."""
NO_ROOM = (*FULL, errno.EROFS)
"""Errors of writing that say nothing about what is read meanwhile."""


def cache_folder() -> Path:
    """The cache folder of this machine: `$THAW_CACHE`, or `~/.cache/thaw`."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/thaw").expanduser()


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield a temporary name to write under, and rename it to `file`: a reader sees the old file or the new one.

    Raises OSError like `naming_write`; nothing is left of the temporary file then.
    """
    temporary = file.with_name(f"{file.name}.{os.getpid()}{UNFINISHED}")
    try:
        with naming_write(file):
            yield temporary
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(file: Path, text: str) -> None:
    """Write `text` as UTF-8, see `written_whole`."""
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # file names may be in no encoding


def require_writable(folder: Path, advice: str = ANOTHER_OUTPUT) -> None:
    """Make a folder to write to. Raises UserError, with `advice`, if files cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error, advice) from error


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make the folder of a command's `output`, into which the `with` block writes.

    Raises:
        UserError: files cannot be written there, or the disk is full.
    """
    require_writable(folder)
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _not_writable(folder, error, ANOTHER_OUTPUT) from error


def _not_writable(folder: Path, error: OSError, advice: str) -> UserError:
    return UserError(f"{folder} cannot be written to ({error.strerror}): {advice}")


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
