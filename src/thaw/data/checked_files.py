"""Which image files were found whole on this machine: they are not looked into again while they stay as they were."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import PIL

from thaw.caching.store import CHECKED, UNFINISHED
from thaw.data import image_file
from thaw.storage import cache_folder, digest

TOO_NEW = 2.0
"""Seconds. What changed within them may change again and show the same time: clocks of file systems are coarse."""


class CheckedFiles:
    """Files below `root`, from the cache folder and back into it. What is damaged or unreadable there is forgotten."""

    def __init__(self, root: Path):
        self.file = cache_folder() / CHECKED.replace("*", digest(os.fsencode(os.path.abspath(root))))
        self.known = self._read()
        self.new: dict[str, str] = {}

    def digest_of(self, file: Path, status: os.stat_result) -> bytes | None:
        """Of its content; None where it is unknown or changed."""
        stamp, _, digest = self.known.get(os.path.abspath(file), "").rpartition(" ")
        return bytes.fromhex(digest) if stamp == _stamp(status) else None

    def add(self, file: Path, status: os.stat_result, digest: bytes) -> None:
        """`status`: from before the content was read, so that it does not fit if that changed meanwhile."""
        if status.st_mtime < time.time() - TOO_NEW:
            self.new[os.path.abspath(file)] = f"{_stamp(status)} {digest.hex()}"

    def save(self) -> None:
        if not self.new:
            return
        files = {**self.known, **self.new}
        unfinished = self.file.with_suffix(f".{os.getpid()}{UNFINISHED}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps({"files": files, "seal": _seal(files)}))
            os.replace(unfinished, self.file)
        except OSError:  # the files are looked into again the next time
            with suppress(OSError):
                unfinished.unlink()

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self.file.read_text())
            if content["seal"] != _seal(content["files"]):
                return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return {}
        with suppress(OSError):
            os.utime(self.file)  # when it was last used
        return content["files"]


def _stamp(status: os.stat_result) -> str:
    """The second time, of the change of status, tells a file that was put there with the first one of another."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _seal(files: dict[str, str]) -> str:
    """Also of what decides whether a file is whole."""
    return digest(PIL.__version__, Path(image_file.__file__).read_bytes(), json.dumps(files))
