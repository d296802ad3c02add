"""Checkpoints that survive a kill, a full disk or a bad sector: written beside the last good one, then renamed."""

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from thaw.faults import naming_write
from thaw.manifest import digest_of, is_intact, partial_name, read_manifest, sync_folder, write_manifest

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that writes checkpoints so that at every moment there is an intact one.

    Lightning's own writes into $TMPDIR and moves the file, which across file systems is a copy over the last good one,
    and does not wait for the disk. Here the former `last.ckpt` stays as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises OSError if the disk is full; all files are then as they were."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_name(file)
        try:
            with naming_write(file):
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
            write_manifest(file.parent, manifest, sync=True)


def link_checkpoint(file: Path, name: Path) -> None:
    """Give a checkpoint a second name, by a copy if the file system has no hard links."""
    partial = partial_name(name)
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:
        with naming_write(name), file.open("rb") as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    _publish(partial, name, read_manifest(file.parent).get(file.name) or [digest_of(file)])


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


def _publish(partial: Path, file: Path, digests: Sequence[str]) -> None:
    """Rename a finished file, which has one of these digests, to its name. At every moment there is an intact file."""
    folder, manifest = file.parent, read_manifest(file.parent)
    keeps_previous = file.name == LAST and file.exists()
    old_digests = (manifest.get(file.name) or [digest_of(file)]) if file.exists() else []
    # 1. Until the names have moved, each may stand for the old file or for the new one.
    moving = {**manifest, file.name: [*digests, *old_digests]}
    if keeps_previous:
        moving[PREVIOUS] = [*old_digests, *manifest.get(PREVIOUS, [])]
    write_manifest(folder, moving, sync=True)
    # 2. Each name moves in one step.
    if keeps_previous:
        os.replace(file, folder / PREVIOUS)
    os.replace(partial, file)
    sync_folder(folder)
    # 3. From now on each name stands for one file.
    write_manifest(
        folder, {**moving, file.name: list(digests), **({PREVIOUS: old_digests} if keeps_previous else {})}, sync=True
    )


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
