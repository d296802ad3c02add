"""Labelled image files: what sources of image files share. All files are checked before anything is trained on them."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from thaw.console import progress
from thaw.data.image_file import fault, load_image, quiet_pillow
from thaw.data.images import ImageSource, default_workers
from thaw.data.samples import Sample

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


class ImageFiles(ImageSource):
    """Image files below `root`, one label each. `notes`: what else was found and is not used, for the report.

    `on_bad`: "error" raises a ValueError that names every file that cannot be loaded; "leave_out" goes on without them.
    """

    def __init__(self, root: Path, files: Sequence[LabelledFile], notes: Sequence[str], *, on_bad: str, **choices: Any):
        if on_bad not in ON_BAD:
            raise ValueError(f"data.on_bad is {' or '.join(ON_BAD)}, not '{on_bad}'")
        contents = looked_into([sample.file for sample in files])
        bad = [f"{s.place}{s.file}: {c.fault}" for s, c in zip(files, contents, strict=True) if c.fault]
        if bad and on_bad == "error":
            raise ValueError(
                f"{len(bad)} of {len(files)} images cannot be loaded:\n" + "\n".join(f"  {line}" for line in bad) + "\n"
                "Mend or remove them, or type data.on_bad=leave_out to go on without them."
            )
        kept = [(sample, c.digest) for sample, c in zip(files, contents, strict=True) if not c.fault]
        if not kept:
            raise ValueError("no image is left to learn from:\n" + "\n".join(f"  {line}" for line in bad))
        self.root, self.left_out, self.notes = root, bad, list(notes)
        self.files = [sample.file for sample, _ in kept]
        self.digests = [digest for _, digest in kept]
        labels, splits = [sample.label for sample, _ in kept], [sample.split for sample, _ in kept]
        super().__init__(FileReader(self.files), labels, splits, **choices)

    def identity(self, index: int) -> Sample:
        return Sample(self.files[index].relative_to(self.root).as_posix(), self.digests[index].hex())

    def summary(self) -> str:
        lines = [super().summary()]
        if self.left_out:
            lines.append(f"{len(self.left_out)} images were left out, as data.on_bad says: data.txt names them")
        return "\n".join([*lines, *(f"warning: {warning.splitlines()[0]}" for warning in self._warnings())])

    def report(self) -> str:
        lines = [super().report().rstrip()]
        if self.left_out:
            lines.append(_listed("left out: they cannot be loaded", self.left_out, most=len(self.left_out)))
        lines += [f"warning: {warning}" for warning in self._warnings()]
        if self.notes:
            lines.append(_listed("not used", self.notes))
        return "\n".join(lines)

    def _warnings(self) -> list[str]:
        found = []
        for name, indices in self.parts.items():
            missing = [c for c, n in zip(self.class_names, self.counts(indices), strict=True) if not n]
            if missing:
                found.append(f"{name} has no image of the class {', '.join(missing)}")
        part_of = {index: name for name, indices in self.parts.items() for index in indices.tolist()}
        across, labels = [], []
        for group in _identical(self.digests):
            names = " = ".join(str(self.files[i]) for i in group)
            if len({part_of[i] for i in group if i in part_of}) > 1:
                across.append(names)
            if len({self.targets[i] for i in group}) > 1:
                labels.append(names)
        if across:
            found.append(_listed("groups of identical files lie in different splits, so scores will flatter", across))
        if labels:
            found.append(_listed("groups of identical files have different labels", labels))
        return found


class FileReader:
    """Loads files by their number."""

    def __init__(self, files: Sequence[Path]):
        self.files = files

    def __call__(self, index: int) -> Image.Image:
        try:
            return load_image(self.files[index])
        except ValueError as error:  # it was whole when the run began
            raise ValueError(f"{self.files[index]}: {error}") from error


def looked_into(files: Sequence[Path]) -> list[Content]:
    """Decodes every file, in threads, with a progress bar."""
    with quiet_pillow(), ThreadPoolExecutor(default_workers()) as threads:
        return list(progress(threads.map(_look_into, files), len(files), "checking images"))


def _look_into(file: Path) -> Content:
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        return Content("a link to nothing" if file.is_symlink() else reason, b"")
    return Content(fault(content, file), blake2b(content, digest_size=16).digest())


def _identical(digests: Sequence[bytes]) -> list[list[int]]:
    groups = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _listed(what: str, lines: Sequence[str], most: int = 20) -> str:
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:most]), *more])
