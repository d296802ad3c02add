"""Labelled image files: what sources of image files share. All files are checked before anything is trained on them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from thaw.console import progress
from thaw.data.checked_files import CheckedFiles
from thaw.data.image_file import fault, load_in_thread, quiet_pillow, stored_size
from thaw.data.image_module import ImageDataModule, default_workers
from thaw.data.report import oddities
from thaw.data.samples import Sample
from thaw.errors import UserError
from thaw.types import Indices

T = TypeVar("T")

ON_BAD = ("error", "leave_out")


@dataclass(frozen=True)
class LabelledFile:
    file: Path
    label: str
    split: str | None = None
    """train, val or test where the data says so; None: split here."""
    place: str = ""
    """Where it was named, for messages: `labels.csv, row 7: `."""


@dataclass(frozen=True)
class Content:
    """What a look into a file gave."""

    fault: str | None
    """Why it cannot be loaded."""
    digest: bytes
    """Equal for files that are identical."""


class ImageFileDataModule(ImageDataModule):
    """Image files below `root`, one label each. `notes`: what else was found and is not used, for the report.

    `on_bad`: "error" raises a ValueError that names every file that cannot be loaded; "leave_out" goes on without them.
    """

    def __init__(self, root: Path, files: Sequence[LabelledFile], notes: Sequence[str], *, on_bad: str, **choices: Any):
        if on_bad not in ON_BAD:
            raise UserError(f"data.on_bad is {' or '.join(ON_BAD)}, not '{on_bad}'")
        contents = looked_into([sample.file for sample in files], root)
        bad = [f"{s.place}{s.file}: {c.fault}" for s, c in zip(files, contents, strict=True) if c.fault]
        if bad and on_bad == "error":
            raise UserError(
                f"{len(bad)} of {len(files)} images cannot be loaded:\n" + "\n".join(f"  {line}" for line in bad) + "\n"
                "Mend or remove them, or type data.on_bad=leave_out to go on without them."
            )
        kept = [(sample, c.digest) for sample, c in zip(files, contents, strict=True) if not c.fault]
        if not kept:
            raise UserError("no image is left to learn from:\n" + "\n".join(f"  {line}" for line in bad))
        self.root = root
        self.files = [sample.file for sample, _ in kept]
        self.digests = [digest for _, digest in kept]
        labels, splits = [sample.label for sample, _ in kept], [sample.split for sample, _ in kept]
        super().__init__(FileReader(self.files), labels, splits, **choices)
        self.left_out, self.notes = bad, list(notes)

    def identity(self, index: int) -> Sample:
        return Sample(self.files[index].relative_to(self.root).as_posix(), self.digests[index].hex())

    def contents(self, samples: Indices) -> list[str]:
        return [self.digests[index].hex() for index in samples.tolist()]

    def warnings(self) -> list[str]:
        return oddities(self.parts, self.targets, self.class_names, self.digests, lambda i: str(self.files[i]), "files")


class FileReader:
    """Loads files by their number."""

    def __init__(self, files: Sequence[Path]):
        self.files = files

    def __call__(self, index: int) -> Image.Image:
        with quiet_pillow():
            return self.in_thread(index)

    def in_thread(self, index: int) -> Image.Image:
        return self._named(load_in_thread, index)

    def stored_size(self, index: int) -> tuple[int, int]:
        return self._named(stored_size, index)

    def _named(self, read: Callable[[Path], T], index: int) -> T:
        try:
            return read(self.files[index])
        except ValueError as error:  # it was whole when the run began
            raise UserError(f"{self.files[index]}: {error}") from error


def looked_into(files: Sequence[Path], root: Path) -> list[Content]:
    """Decodes every file below `root` that was not found whole before, in threads, with a progress bar."""
    checked = CheckedFiles(root)
    with quiet_pillow(), ThreadPoolExecutor(default_workers()) as threads:
        look = partial(_look_into, checked)
        contents = list(progress(threads.map(look, files), len(files), "checking images"))
    checked.save()
    return contents


def _look_into(checked: CheckedFiles, file: Path) -> Content:
    try:
        status = file.stat()
        if (known := checked.digest_of(file, status)) is not None:
            return Content(None, known)
        content = file.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        return Content("a link to nothing" if file.is_symlink() else reason, b"")
    found = Content(fault(content, file), blake2b(content, digest_size=16).digest())
    if found.fault is None:
        checked.add(file, status, found.digest)
    return found
