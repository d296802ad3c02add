"""Checksums of files, in `manifest.json` beside them, and errors that name a damaged file.

The manifest lists the SHA-256 digests that each name may stand for: one, or two while a name moves from one file to
another.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from thaw.errors import UserError
from thaw.faults import UNFINISHED, naming_write

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
Manifest = dict[str, list[str]]
"""Digests by file name."""


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; an empty one if there is none, or if it is damaged."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text())
        if not all(isinstance(digests, list) for digests in manifest.values()):
            raise ValueError("not lists of digests by file name")
        return manifest
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        log.warning("%s is damaged: the files beside it are not verified", file)
        return {}


def write_manifest(folder: Path, manifest: Manifest, sync: bool = False) -> None:
    """Write a manifest, whole or not at all; with `sync`, wait until it is on the disk."""
    partial = partial_name(folder / MANIFEST)
    try:
        with naming_write(folder / MANIFEST), partial.open("w") as opened:
            json.dump(manifest, opened, indent=2)
            opened.flush()
            if sync:
                os.fsync(opened.fileno())
        os.replace(partial, folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows does not open folders
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def partial_name(file: Path) -> Path:
    """Where a file is written before it gets its name."""
    return file.with_name(file.name + UNFINISHED)


def digest_of(file: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to. What is there at the end becomes `file`, whole or not at all, and is in the manifest.

    At every moment the manifest has the digest of what `file` is, so a kill damages nothing.
    """
    partial, folder = partial_name(file), file.parent
    try:
        with naming_write(file):
            yield partial
            manifest, digest = read_manifest(folder), digest_of(partial)
            if file.exists():
                old = manifest.get(file.name) or [digest_of(file)]
                write_manifest(folder, {**manifest, file.name: [digest, *old]})
            os.replace(partial, file)
            write_manifest(folder, {**manifest, file.name: [digest]})
    finally:
        partial.unlink(missing_ok=True)


def list_in_manifest(file: Path) -> None:
    """Take the file as it is now into the manifest beside it."""
    write_manifest(file.parent, {**read_manifest(file.parent), file.name: [digest_of(file)]})


def drop_from_manifest(file: Path) -> None:
    """Take a file that is about to change out of the manifest beside it: it is not verified any more."""
    manifest = read_manifest(file.parent)
    if manifest.pop(file.name, None):
        write_manifest(file.parent, manifest)


def is_intact(file: Path) -> bool:
    """Return whether a file has its digest, or, if the manifest lists none, whether it can be read."""
    digests = read_manifest(file.parent).get(file.name)
    try:
        digest = digest_of(file)
    except OSError:
        return False
    return digests is None or digest in digests


def require_intact(file: Path, advice: str) -> Path:
    """Return `file`, which need not exist. Raises UserError if it is not as the manifest beside it says.

    A file that is not in the manifest, as in folders of earlier versions, is not verified.
    """
    if file.is_file() and (digests := read_manifest(file.parent).get(file.name)) is not None:
        state = file.stat()
        if _digest_once(file, state.st_ino, state.st_size, state.st_mtime_ns) not in digests:
            raise UserError(f"{file} is damaged: it is not as the run wrote it ({MANIFEST} has its checksum). {advice}")
    return file


@lru_cache
def _digest_once(file: Path, *state: int) -> str:
    """The digest of a file in a state, so that a command that reads it several times verifies it once."""
    return digest_of(file)


def read_json(file: Path, kind: type, advice: str) -> Any:
    """Content of a JSON file; an empty `kind` if there is none.

    Raises:
        UserError: the file is not as the manifest beside it says, or holds no `kind`.
    """
    if not require_intact(file, advice).is_file():
        return kind()
    with naming_damage(file):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise TypeError(f"a {type(content).__name__} in place of a {kind.__name__}")
        return content


@contextmanager
def naming_damage(file: Path) -> Iterator[None]:
    """Raise UserError that names `file` in place of whatever reading broken content raises."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, BadZipFile) as error:
        if str(error).startswith(str(file)):
            raise
        said = "".join(str(error).splitlines()[:1])
        reason = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
        raise UserError(f"{file} is damaged, or thaw did not write it: {reason}") from error
