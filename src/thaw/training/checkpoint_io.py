"""Checkpoints that survive a kill, a full disk or a bad sector: written beside the last good one, then renamed.

`manifest.json` in the same folder lists the SHA-256 digests that each name may stand for: one, or two while a name
moves from one file to another.
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

from thaw.storage import naming

log = logging.getLogger(__name__)

LAST, PREVIOUS, MANIFEST = "last.ckpt", "previous.ckpt", "manifest.json"
Manifest = dict[str, list[str]]
"""Digests by file name."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that writes checkpoints so that at every moment there is an intact one.

    Lightning's own writes into $TMPDIR and moves the file, which across file systems is a copy over the last good one,
    and does not wait for the disk. Here the former `last.ckpt` stays as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises OSError if the disk is full; all files are then as they were."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_name(file)
        try:
            with naming(file):
                _publish(partial, file, [_write(checkpoint, partial)])
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint and its line in the manifest."""
        file = Path(path)
        super().remove_checkpoint(file)
        manifest = read_manifest(file.parent)
        if manifest.pop(file.name, None):
            _write_manifest(file.parent, manifest)


def link_checkpoint(file: Path, name: Path) -> None:
    """Give a checkpoint a second name, by a copy if the file system has no hard links."""
    partial = _partial_name(name)
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:
        with naming(name), file.open("rb") as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    _publish(partial, name, read_manifest(file.parent).get(file.name) or [_digest(file)])


def newest_intact(folder: Path) -> Path | None:
    """Return the checkpoint to resume from: the last one, or the newest other one that is undamaged.

    Warns of damaged checkpoints. Returns None if there is no undamaged one.
    """
    best = sorted(folder.glob("best-*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in [folder / LAST, folder / PREVIOUS, *best]:
        if file.is_file():
            if is_intact(file):
                return file
            log.warning("%s is damaged (its checksum differs): trying the one before it", file)
    return None


def is_intact(file: Path) -> bool:
    """Return whether a file has its digest, or, if the manifest lists none, whether it can be read."""
    digests = read_manifest(file.parent).get(file.name)
    try:
        digest = _digest(file)
    except OSError:
        return False
    return digests is None or digest in digests


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder of checkpoints; an empty one if there is none, or if it is damaged."""
    file = folder / MANIFEST
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        log.warning("%s is damaged: the checkpoints beside it are not verified", file)
        return {}


def _publish(partial: Path, file: Path, digests: Sequence[str]) -> None:
    """Rename a finished file, which has one of these digests, to its name. At every moment there is an intact file."""
    folder, manifest = file.parent, read_manifest(file.parent)
    keeps_previous = file.name == LAST and file.exists()
    old_digests = (manifest.get(file.name) or [_digest(file)]) if file.exists() else []
    # 1. Until the names have moved, each may stand for the old file or for the new one.
    moving = {**manifest, file.name: [*digests, *old_digests]}
    if keeps_previous:
        moving[PREVIOUS] = [*old_digests, *manifest.get(PREVIOUS, [])]
    _write_manifest(folder, moving)
    # 2. Each name moves in one step.
    if keeps_previous:
        os.replace(file, folder / PREVIOUS)
    os.replace(partial, file)
    _sync_folder(folder)
    # 3. From now on each name stands for one file.
    _write_manifest(folder, {**moving, file.name: list(digests), **({PREVIOUS: old_digests} if keeps_previous else {})})


def _partial_name(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _write(checkpoint: dict[str, Any], file: Path) -> str:
    """Write a checkpoint to the disk and return its digest."""
    file.unlink(missing_ok=True)  # it may be a link to another checkpoint
    with file.open("wb") as opened:
        hashing = _HashingFile(opened)
        try:
            torch.save(checkpoint, cast(BinaryIO, hashing))
            opened.flush()
            os.fsync(opened.fileno())
        except (RuntimeError, OSError) as error:  # torch raises a RuntimeError of its own, whatever the reason
            reason = hashing.error or error
            if not isinstance(reason, OSError):
                raise
            raise OSError(reason.errno, reason.strerror, str(file)) from error
    return hashing.sha256.hexdigest()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    partial = _partial_name(folder / MANIFEST)
    with naming(folder / MANIFEST), partial.open("w") as opened:
        json.dump(manifest, opened, indent=2)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(partial, folder / MANIFEST)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows does not open folders
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _HashingFile:
    """File that hashes what is written to it, and keeps the error of a failed write: torch hides the reason."""

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
