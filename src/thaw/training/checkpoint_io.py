"""Checkpoints that no kill, full disk or bad sector takes away: written beside the last good one, then renamed.

`manifest.json` beside them has the SHA-256 digests that each name may stand for: one, but two while names move.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

log = logging.getLogger(__name__)

LAST, PREVIOUS, MANIFEST = "last.ckpt", "previous.ckpt", "manifest.json"
Digests = dict[str, list[str]]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own stages a file in $TMPDIR and moves it, which across file systems is a copy over the last good
    one, and waits for no disk.

    What was `last.ckpt` before stays as `previous.ckpt`. Raises OSError where the disk is full; all is then as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = unfinished_name(file)
        try:
            digest = _write(checkpoint, unfinished)
            publish(unfinished, file, [digest])
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def remove_checkpoint(self, path: str | Path) -> None:
        file = Path(path)
        super().remove_checkpoint(file)
        listed = read_manifest(file.parent)
        if listed.pop(file.name, None):
            _write_manifest(file.parent, listed)


def unfinished_name(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def publish(unfinished: Path, file: Path, digests: Sequence[str]) -> None:
    """Give a whole file, which has one of these digests, its name. At no moment is there no good file."""
    folder, listed = file.parent, read_manifest(file.parent)
    keeps = file.name == LAST and file.exists()
    before = (listed.get(file.name) or [digest_of(file)]) if file.exists() else []
    # 1. Until the names have moved, each may stand for the old file or for the new one.
    moving = {**listed, file.name: [*digests, *before]}
    if keeps:
        moving[PREVIOUS] = [*before, *listed.get(PREVIOUS, [])]
    _write_manifest(folder, moving)
    # 2. Names move, all at once or not at all.
    if keeps:
        os.replace(file, folder / PREVIOUS)
    os.replace(unfinished, file)
    _to_disk(folder)
    # 3. What they stand for now.
    _write_manifest(folder, {**moving, file.name: list(digests), **({PREVIOUS: before} if keeps else {})})


def second_name(file: Path, name: Path) -> None:
    """Give a checkpoint another name; where the file system knows no second names, a copy."""
    unfinished = unfinished_name(name)
    unfinished.unlink(missing_ok=True)
    try:
        os.link(file, unfinished)
    except OSError:
        with file.open("rb") as source, unfinished.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    publish(unfinished, name, read_manifest(file.parent).get(file.name) or [digest_of(file)])


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from: the last one, or the next best that is as it was written; the others are named in
    warnings. None where there is none."""
    best = sorted(folder.glob("best-*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in [folder / LAST, folder / PREVIOUS, *best]:
        if file.is_file():
            if is_whole(file):
                return file
            log.warning("%s is not as it was written (its checksum differs): the one before it is taken", file)
    return None


def is_whole(file: Path) -> bool:
    """Whether a file is as it was written; of one that came from elsewhere, and is not listed, whether it is read."""
    digests = read_manifest(file.parent).get(file.name)
    try:
        return digest_of(file) in (digests or [digest_of(file)])
    except OSError:
        return False


def digest_of(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(2**20):
            found.update(part)
    return found.hexdigest()


def read_manifest(folder: Path) -> Digests:
    file = folder / MANIFEST
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        log.warning("%s is damaged: the checkpoints beside it are taken as they are", file)
        return {}


def _write(checkpoint: dict[str, Any], file: Path) -> str:
    """Its digest, when it is on the disk."""
    file.unlink(missing_ok=True)  # it may be a second name of another
    with file.open("wb") as opened:
        digested = _Digested(opened)
        try:
            torch.save(checkpoint, cast(BinaryIO, digested))
            opened.flush()
            os.fsync(opened.fileno())
        except (RuntimeError, OSError) as error:  # often torch's own, whatever the reason
            reason = digested.error or error
            if not isinstance(reason, OSError):
                raise
            raise OSError(reason.errno, reason.strerror, str(file)) from error
    return digested.sha256.hexdigest()


def _write_manifest(folder: Path, listed: Digests) -> None:
    unfinished = unfinished_name(folder / MANIFEST)
    with unfinished.open("w") as opened:
        json.dump(listed, opened, indent=2)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(unfinished, folder / MANIFEST)
    _to_disk(folder)


def _to_disk(folder: Path) -> None:
    """The names in it."""
    if os.name == "nt":  # where folders are not opened
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _Digested:
    """A file that notes what is written, and why it could not be: torch only says that it could not."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256 = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
