"""Labelled image files: what the sources of image files share. Every file is checked before training."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from thaw.console import progress
from thaw.data.checked_files import CheckedFiles
from thaw.data.class_labels import ClassLabels
from thaw.data.groups import groups_of_paths
from thaw.data.image_file import (
    MAX_16_BITS,
    SPECIAL,
    find_fault,
    is_special,
    largest_value,
    load_in_thread,
    quiet_pillow,
    stored_size,
)
from thaw.data.labels import Labels
from thaw.data.loader import default_workers
from thaw.data.report import format_list
from thaw.errors import UserError
from thaw.storage import digest

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledFile:
    """An image file with its label."""

    file: Path
    label: Any
    """The name of its class, or what a table gives in its place, see `Labels.read`."""
    split: str | None = None
    """train, val or test; None if the data does not say."""
    group: str | None = None
    """What it belongs to, such as a patient; None if the data does not say."""
    place: str = ""
    """Where a table names the file, as a prefix for messages: `labels.csv, line 7: `."""


@dataclass(frozen=True)
class CheckedFile:
    """Result of checking one image file."""

    fault: str | None
    """Why the file cannot be loaded; None if it can."""
    digest: str
    """Digest of its content."""
    largest: int | None = None
    """Largest value of a grey 16-bit image; None for any other."""


class ImageFiles:
    """Source of image files below a folder. `ImageFolder` and `ImageTable` find the files.

    Args:
        root: Folder that the names of samples are relative to.
        files: The files; all of them are checked.
        notes: A line for the report for each entry of the folder that is not used.
        on_bad: What to do if files cannot be loaded: "error" or "leave_out".
        max_value: Value of grey 16-bit images that is white; None for 65535.
        group: Regular expression that finds the group of a file in its path below `root`; None if `files` say it, or if
            they do not belong together.
        numbered: Makes the labels of all samples from those of the files.

    Raises:
        UserError: naming every file that cannot be loaded, unless `on_bad` is "leave_out".
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[LabelledFile],
        notes: Sequence[str],
        on_bad: str,
        max_value: int | None = None,
        group: str | None = None,
        numbered: Callable[[Sequence[Any]], Labels] = ClassLabels.numbered,
    ):
        checks = [_within(check, max_value) for check in check_files([sample.file for sample in files], root)]
        checked = list(zip(files, checks, strict=True))
        self.left_out = [f"{sample.place}{sample.file}: {check.fault}" for sample, check in checked if check.fault]
        if self.left_out and on_bad == "error":
            what = f"of {len(files)} images cannot be loaded"
            raise UserError(
                f"{format_list(what, self.left_out, most=len(self.left_out))}\n"
                "Fix or remove them, or type data.on_bad=leave_out to go on without them."
            )
        usable = [(sample, check) for sample, check in checked if not check.fault]
        if not usable:
            raise UserError("no image is left to learn from:\n" + format_list("images cannot be loaded", self.left_out))
        self.files = [sample.file for sample, _ in usable]
        self.names = [file.relative_to(root).as_posix() for file in self.files]
        labels = numbered([sample.label for sample, _ in usable])
        self.class_names, self.targets = labels.names, labels.targets
        self.splits = [sample.split for sample, _ in usable]
        if group is not None:
            self.groups: list[str] | None = groups_of_paths(group, self.names)
        else:
            groups = [sample.group for sample, _ in usable if sample.group is not None]
            self.groups = groups or None
        if self.reads_plainly:
            self.digests = [
                check.digest if max_value is None or check.largest is None else digest(check.digest, str(max_value))
                for _, check in usable
            ]
        self.notes, self.max_value = notes, max_value
        self.warnings = _warnings([check.largest for _, check in usable if check.largest is not None], max_value)

    @property
    def reads_plainly(self) -> bool:
        """Whether samples are the files as they are: false for a derived class that reads them in another way."""
        return type(self).__getitem__ is ImageFiles.__getitem__

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """An image as RGB, and its label. Raises UserError if its file changed and cannot be loaded any more."""
        with quiet_pillow():
            return self.in_thread(index), self.targets[index]

    def in_thread(self, index: int) -> Image.Image:
        """Load an image inside the caller's `quiet_pillow`. Safe in threads."""
        return self._read(lambda file: load_in_thread(file, self.max_value), index)

    def stored_size(self, index: int) -> tuple[int, int]:
        """Return width and height from the header of a file, before EXIF orientation."""
        return self._read(stored_size, index)

    def _read(self, read: Callable[[Path], T], index: int) -> T:
        try:
            return read(self.files[index])
        except ValueError as error:  # the file changed since it was checked
            raise UserError(f"{self.files[index]}: {error}") from error


def check_files(files: Sequence[Path], root: Path) -> list[CheckedFile]:
    """Decode every file below `root` that is not known to be intact, in threads and with a progress bar."""
    known = CheckedFiles(root)
    with quiet_pillow(), ThreadPoolExecutor(default_workers()) as threads:
        results = list(progress(threads.map(partial(_check, known), files), len(files), "checking images"))
    known.save()
    return results


def _check(known: CheckedFiles, file: Path) -> CheckedFile:
    try:
        status = file.stat()
        if (remembered := known.find(file, status)) is not None:
            return CheckedFile(None, *remembered)
        if is_special(file):
            return CheckedFile(SPECIAL, "")
        content = file.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        return CheckedFile("a link to nothing" if file.is_symlink() else reason, "")
    if (fault := find_fault(content, file)) is not None:
        return CheckedFile(fault, digest(content))
    checked = CheckedFile(None, digest(content), largest_value(content))
    known.add(file, status, checked.digest, checked.largest)
    return checked


def _within(check: CheckedFile, max_value: int | None) -> CheckedFile:
    """The result, or a fault if the image has values above `max_value`."""
    if max_value is None or check.largest is None or check.largest <= max_value:
        return check
    return replace(check, fault=f"its pixels reach {check.largest:,}, above data.max_value={max_value}")


def _warnings(largest: Sequence[int], max_value: int | None) -> list[str]:
    """What is odd about the largest values of all grey 16-bit images."""
    if max_value is not None:
        return [] if largest else [f"data.max_value={max_value} is ignored: no image has 16 bits"]
    bits = max(largest, default=0).bit_length()
    if bits in (0, 16):
        return []
    return [
        f"none of the {len(largest):,} images of 16 bits has a value above {2**bits - 1:,}, and {MAX_16_BITS:,} is "
        f"white, so they are dark. If they have {bits} bits, type data.max_value={2**bits - 1}"
    ]
