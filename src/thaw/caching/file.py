"""One file of arrays: a checksum, a header of plain JSON, then the arrays, each on a page of its own."""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

MAGIC = b"thaw cache 1\n"
CHECKSUM, LENGTH = 8, 8
"""Hexadecimal digits of the two numbers behind it: of all that follows the first; of the header, bytes."""
PAGE = 4096
BLOCK = 2**24
"""Bytes that are checked at once."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.uint8, torch.int32, torch.int64),
    )
}


class DamagedFileError(ValueError):
    """A file that is not as it was written."""


@dataclass(frozen=True)
class Layout:
    """Of one array."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Kept:
    """What a file holds."""

    about: Mapping[str, Any]
    """For people, and for whoever wrote it."""
    arrays: Mapping[str, Tensor]
    """Mapped into memory: read when they are used. Not to be written to."""


class Writer(Protocol):
    def __call__(self, name: str, first: int, rows: Tensor) -> None:
        """Put `rows` into array `name`, from row `first` on."""


@dataclass(frozen=True)
class Place:
    layout: Layout
    offset: int
    """Bytes from the beginning of the file."""


@dataclass(frozen=True)
class FilePlan:
    """Of a file that is to be written."""

    header: bytes
    places: dict[str, Place]
    num_bytes: int

    @classmethod
    def of(cls, about: Mapping[str, Any], arrays: Mapping[str, Layout]) -> "FilePlan":
        described = {name: {"dtype": _name(one.dtype), "shape": one.shape} for name, one in arrays.items()}
        text = json.dumps({"about": {**about, "made": time.strftime("%Y-%m-%d %H:%M")}, "arrays": described}).encode()
        fixed = len(MAGIC) + CHECKSUM + LENGTH
        length = _whole_pages(fixed + len(text)) - fixed
        header = MAGIC + b"0" * CHECKSUM + f"{length:0{LENGTH}x}".encode() + text.ljust(length)
        return cls(header, *_places(len(header), arrays))


def begin(path: Path, plan: FilePlan) -> None:
    """The whole length at once: a full disk shows before the work is done."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, plan.num_bytes)
        else:
            file.truncate(plan.num_bytes)
        file.write(plan.header)


def write(path: Path, plan: FilePlan, fill: Callable[[Writer], None]) -> None:
    """Rows of a file that was begun, in any order, by any number of processes."""
    # Written and not mapped: where a disk is full, a write fails, and what is mapped kills the process.
    with path.open("r+b", buffering=0) as file:

        def write_rows(name: str, first: int, rows: Tensor) -> None:
            layout, offset = plan.places[name].layout, plan.places[name].offset
            assert (rows.dtype, rows.shape[1:]) == (layout.dtype, layout.shape[1:]), f"{name}: {rows.shape}"
            assert first + len(rows) <= layout.shape[0]
            file.seek(offset + first * Layout(layout.dtype, layout.shape[1:]).num_bytes)
            content = rows.contiguous().flatten().view(torch.uint8).numpy().data
            while content:
                content = content[file.write(content) :]

        fill(write_rows)


def finish(path: Path) -> None:
    """Until now it counts as damaged."""
    with path.open("r+b") as file:
        checksum = _checksum(file)
        file.seek(len(MAGIC))
        file.write(checksum)


def opened(path: Path, check: bool = True) -> Kept:
    """Raises DamagedFileError unless every byte is as it was written; `check=False`: unless the header is."""
    with path.open("rb") as file:
        given, _ = _beginning(file)
        if check and _checksum(file) != given:
            raise DamagedFileError("its checksum does not fit")
        header, length = _header(file)
    arrays = {name: Layout(DTYPES[one["dtype"]], tuple(one["shape"])) for name, one in header["arrays"].items()}
    places, num_bytes = _places(length, arrays)
    try:
        content = torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8)
    except RuntimeError as error:  # another process made room since
        raise FileNotFoundError(path) from error
    return Kept(header["about"], {name: _array(content, place) for name, place in places.items()})


def about(path: Path) -> Mapping[str, Any]:
    """The header alone, the rest unchecked. Raises DamagedFileError."""
    with path.open("rb") as file:
        return _header(file)[0]["about"]


def _array(content: Tensor, place: Place) -> Tensor:
    layout = place.layout
    return content[place.offset : place.offset + layout.num_bytes].view(layout.dtype).view(layout.shape)


def _places(first: int, arrays: Mapping[str, Layout]) -> tuple[dict[str, Place], int]:
    """Where each goes behind byte `first`, and where the last one ends."""
    places, offset = {}, first
    for name, layout in arrays.items():
        places[name] = Place(layout, offset)
        offset += _whole_pages(layout.num_bytes)
    return places, offset


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """What it says, and where it ends."""
    _, length = _beginning(file)
    try:
        return json.loads(file.read(length)), file.tell()
    except ValueError as error:
        raise DamagedFileError(f"its header cannot be read ({error})") from error


def _beginning(file: BinaryIO) -> tuple[bytes, int]:
    """Checksum and length of the header."""
    file.seek(0)
    magic, checksum, length = file.read(len(MAGIC)), file.read(CHECKSUM), file.read(LENGTH)
    try:
        if magic == MAGIC:
            return checksum, int(length, 16)
    except ValueError:
        pass
    raise DamagedFileError("it does not begin as such files do")


def _checksum(file: BinaryIO) -> bytes:
    """Of all that comes behind it."""
    checksum = 0
    for block in _blocks(file):
        checksum = zlib.crc32(block, checksum)
    return f"{checksum:0{CHECKSUM}x}".encode()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(len(MAGIC) + CHECKSUM)
    while block := file.read(BLOCK):
        yield block


def _whole_pages(num_bytes: int) -> int:
    return -(-num_bytes // PAGE) * PAGE


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
