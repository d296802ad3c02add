"""Format of one cache entry: a folder with an `.npy` file per array and an `about.json`; `np.load` opens the arrays."""

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from thaw.storage import UNFINISHED, digest

ABOUT = "about.json"
BLOCK_BYTES = 2**24
"""How much of a file is in memory while its checksum is computed."""


class DamagedEntryError(ValueError):
    """A cache entry is not as it was written."""


@dataclass(frozen=True)
class Layout:
    """Data type and shape of one array of an entry."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of one row, `array[i]`, in bytes."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def header(self) -> bytes:
        """Beginning of the `.npy` file. NumPy has no bfloat16: its bits are declared as uint16."""
        stored = torch.empty(0, dtype=torch.uint16 if self.dtype == torch.bfloat16 else self.dtype).numpy().dtype
        file = BytesIO()
        descr = np.lib.format.dtype_to_descr(stored)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": self.shape})
        return file.getvalue()

    @property
    def file_bytes(self) -> int:
        """Size of the whole `.npy` file in bytes."""
        return len(self.header) + prod(self.shape) * self.dtype.itemsize


class Writer(Protocol):
    """Writes rows of the arrays of an entry; `fill` functions are given one."""

    def __call__(self, name: str, first: int, rows: Tensor) -> None:
        """Write `rows` into the array `name`, from row `first` on."""


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache."""

    path: Path
    num_bytes: int
    last_used: float
    """Seconds since 1970."""
    about: Mapping[str, Any]
    """Description that the writer of the entry gave. Empty if the entry is unfinished or damaged."""
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    """Read-only by convention and mapped into memory: the disk is read where an array is used. Empty in a listing."""

    @property
    def is_unfinished(self) -> bool:
        """Whether it is being written, or was when its process was killed."""
        return self.path.suffix == UNFINISHED

    @classmethod
    def listed(cls, path: Path) -> "CacheEntry":
        """The entry at `path` without its arrays. Raises FileNotFoundError."""
        status, about = path.stat(), {}
        num_bytes = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else status.st_size
        with suppress(OSError, DamagedEntryError):
            about = _read_about(path)["about"]
        return cls(path, num_bytes, status.st_mtime, about)

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> "CacheEntry":
        """Open the entry at `path`. Raises DamagedEntryError if a checksum is wrong, and FileNotFoundError.

        Args:
            path: Folder of the entry.
            verify: Whether to read all arrays and compare their checksums.
        """
        arrays = {}
        for name, stored in _read_about(path)["arrays"].items():
            file = path / f"{name}.npy"
            if verify and _checksum(file) != stored["crc32"]:
                raise DamagedEntryError(f"the checksum of {file.name} is wrong")
            try:
                # Copy on write: torch warns about arrays that are read-only.
                array = torch.from_numpy(np.load(file, mmap_mode="c"))
            except ValueError as error:
                raise DamagedEntryError(f"{file.name} cannot be read ({error})") from error
            arrays[name] = array.view(torch.bfloat16) if stored["dtype"] == "bfloat16" else array
        return replace(cls.listed(path), arrays=arrays)


def allocate(folder: Path, layouts: Mapping[str, Layout]) -> None:
    """Begin an entry: create files of the final size, so that a full disk shows before the work is done."""
    folder.mkdir(parents=True)
    for name, layout in layouts.items():
        with (folder / f"{name}.npy").open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, layout.file_bytes)
            else:
                file.truncate(layout.file_bytes)
            file.write(layout.header)


def write_rows(folder: Path, layouts: Mapping[str, Layout], fill: Callable[[Writer], None]) -> None:
    """Let `fill` write rows of an entry that was begun; several processes may do so at the same time."""
    header_bytes = {name: len(layout.header) for name, layout in layouts.items()}
    with ExitStack() as stack:
        # Not through a memory map: on a full disk a write raises an error, a map kills the process.
        files = {name: stack.enter_context((folder / f"{name}.npy").open("r+b")) for name in layouts}

        def write(name: str, first: int, rows: Tensor) -> None:
            layout = layouts[name]
            assert (rows.dtype, rows.shape[1:]) == (layout.dtype, layout.shape[1:]), f"{name}: {rows.shape}"
            assert first + len(rows) <= layout.shape[0]
            files[name].seek(header_bytes[name] + first * layout.row_bytes)
            files[name].write(rows.contiguous().flatten().view(torch.uint8).numpy().data)

        fill(write)


def seal(folder: Path, about: Mapping[str, Any], layouts: Mapping[str, Layout]) -> None:
    """Complete an entry: write `about.json` with the checksums of its arrays."""
    arrays = {
        name: {"dtype": str(layout.dtype).removeprefix("torch."), "crc32": _checksum(folder / f"{name}.npy")}
        for name, layout in layouts.items()
    }
    content = {"about": dict(about), "created": time.strftime("%Y-%m-%d %H:%M"), "arrays": arrays}
    text = json.dumps({**content, "digest": digest(json.dumps(content))}, indent=2)
    (folder / ABOUT).write_text(text, encoding="utf-8")


def _read_about(folder: Path) -> dict[str, Any]:
    """The content of `about.json`. Raises DamagedEntryError, or FileNotFoundError if there is no such folder."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if content.pop("digest") == digest(json.dumps(content)):
            return content
    except (ValueError, KeyError, TypeError, AttributeError, NotADirectoryError):
        pass
    except FileNotFoundError:
        if not folder.exists():
            raise
    raise DamagedEntryError(f"{ABOUT} is missing or not as it was written")


def _checksum(file: Path) -> str:
    checksum = 0
    with file.open("rb") as opened:
        while block := opened.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"
