"""Remembers which image files of this machine could be decoded, so that unchanged files are not checked again."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import PIL

from thaw.data import image_file
from thaw.storage import cache_folder, digest, write_atomically

CHECKED_FILES = "checked-*.json"
"""Names of these lists in the cache folder. `*` stands for a digest of the folder that the images are in."""
TOO_NEW_SECONDS = 2.0
"""A file that changed more recently may change again without a new modification time: these clocks are coarse."""


class CheckedFiles:
    """List of the image files below `root` that were checked, in the cache folder. A damaged list counts as empty."""

    def __init__(self, root: Path):
        self.file = cache_folder() / CHECKED_FILES.replace("*", digest(os.fsencode(os.path.abspath(root))))
        self.known = self._read()
        self.new: dict[str, str] = {}

    def find(self, file: Path, status: os.stat_result) -> tuple[str, int | None] | None:
        """Digest and largest value (see `CheckedFile`) of a checked file; None if it was not checked or has changed."""
        *stamp, content_digest, largest = self.known.get(os.path.abspath(file), " ").split(" ")
        return (content_digest, int(largest) if largest else None) if " ".join(stamp) == _stamp(status) else None

    def add(self, file: Path, status: os.stat_result, content_digest: str, largest: int | None) -> None:
        """Remember a file. Take `status` before reading it: a file that changes meanwhile then does not match."""
        if status.st_mtime < time.time() - TOO_NEW_SECONDS:
            self.new[os.path.abspath(file)] = f"{_stamp(status)} {content_digest} {'' if largest is None else largest}"

    def save(self) -> None:
        """Write the list, if there is anything new. Nothing is raised: without it files are checked again."""
        if not self.new:
            return
        files = {**self.known, **self.new}
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps({"files": files, "seal": _seal(files)}))

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["seal"] != _seal(content["files"]):
                return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return {}
        with suppress(OSError):
            os.utime(self.file)  # the time of last use
        return content["files"]


def _stamp(status: os.stat_result) -> str:
    """Size and times of a file. The time of the status change differs even if the modification time was set by hand."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _seal(files: dict[str, str]) -> str:
    """Checksum of the list, and of the code and the library that decide whether a file can be decoded."""
    return digest(PIL.__version__, Path(image_file.__file__).read_bytes(), json.dumps(files))
