"""Photographs in folders: root/class/*, or root/{train,val,test}/class/*."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thaw.data.image_file import SUFFIXES
from thaw.data.image_files import ImageFileDataModule, LabelledFile
from thaw.data.splits import SPLIT_NAMES
from thaw.errors import UserError


class ImageFolder(ImageFileDataModule):
    """A folder a class, in `root` or in its folders train, val and test; a split that is missing is cut from train.

    Takes the keywords of `ImageFileDataModule` and `DataModule`.
    """

    def __init__(self, root: str, **choices: Any):
        folder = Path(root).expanduser()
        super().__init__(folder, *labelled_files(folder), **choices)


def labelled_files(root: Path) -> tuple[list[LabelledFile], list[str]]:
    """All images under `root`, in a fixed order, and what else lies there. Raises UserError where there are none."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {what}: name the folder that holds a folder for each class")
    notes: list[str] = []
    parts = _split_folders(root, notes)
    files: list[LabelledFile] = []
    for split, folder in parts:
        notes += [f"{image} (outside the folders of the classes)" for image in _images_here(folder, notes)]
        for label in _folders(folder, notes):
            found = [LabelledFile(file, _name(label), split) for file in images_below(label, notes)]
            if not found:
                notes.append(f"{label} (a folder without images)")
            files += found
    if not files:
        raise UserError(
            f"{root} has no images in folders: a folder for each class is expected, {root}/<class>/<image>, or "
            f"{root}/train/<class>/<image>" + "".join(f"\nnot used: {note}" for note in notes[:20])
        )
    return files, notes


def _split_folders(root: Path, notes: list[str]) -> list[tuple[str | None, Path]]:
    """(split, folder) where the folders of `root` are splits, else (None, root)."""
    found: dict[str, list[Path]] = {}
    others: list[Path] = []
    for folder in _folders(root, []):
        split = SPLIT_NAMES.get(folder.name.lower())
        # A class may be called "train", too; a split holds folders.
        if split is not None and next(_folders(folder, []), None) is not None:
            found.setdefault(split, []).append(folder)
        else:
            others.append(folder)
    if not found or ("train" not in found and others):
        _require_classes(root, others + [folder for folders in found.values() for folder in folders])
        return [(None, root)]
    if twice := [folders for folders in found.values() if len(folders) > 1]:
        raise UserError(f"{' and '.join(str(folder) for folder in twice[0])} are the same split: keep one of them")
    notes += [f"{folder} (neither train, val nor test)" for folder in others]
    notes += [f"{image} (outside the folders of the classes)" for image in _images_here(root, notes)]
    return [(split, folders[0]) for split, folders in sorted(found.items())]


def _require_classes(root: Path, folders: list[Path]) -> None:
    """ValueError where a folder that stands for a class is a split by its name, or holds what are classes beside it."""
    names = {folder.name for folder in folders}
    for folder in folders:
        inside = {inner.name for inner in _folders(folder, [])}
        named_so = not SPLIT_NAMES.keys().isdisjoint(re.split(r"[^a-z]+", folder.name.lower()))
        if not _images_here(folder, []) and (inside & (names - {folder.name}) or (inside and named_so)):
            raise UserError(
                f"{folder} seems to be a split and no class: it holds the folders {', '.join(sorted(inside)[:5])}. "
                f"Name the splits {root}/train, {root}/val and {root}/test, with a folder for each class in them"
            )


def _folders(folder: Path, notes: list[str]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if _hidden(entry.name):
                notes.append(f"{entry} (hidden)")
            else:
                yield entry


def images_below(folder: Path, notes: list[str]) -> Iterator[Path]:
    """In `folder` and in all folders in it; to `notes` goes what else is there."""
    seen = set()
    for name, inside, _ in os.walk(folder, followlinks=True, onerror=_raise):
        place = Path(name)
        if (real := place.resolve()) in seen:  # links in a circle
            inside.clear()
            continue
        seen.add(real)
        above = [name for name in inside if real.is_relative_to((place / name).resolve())]
        hidden = [name for name in inside if _hidden(name)]
        notes += [f"{place / name} (a link to a folder above)" for name in above]
        notes += [f"{place / name} (hidden)" for name in hidden]
        inside[:] = sorted(set(inside).difference(above, hidden))
        yield from _images_here(place, notes)


def _images_here(folder: Path, notes: list[str]) -> list[Path]:
    images = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            continue
        if _hidden(entry.name):
            notes.append(f"{entry} (hidden)")
        elif entry.suffix.lower() in SUFFIXES:
            images.append(entry)
        else:
            notes.append(f"{entry} (not an image by its name)")
    return images


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _name(folder: Path) -> str:
    """macOS writes accents apart from their letters: the same name must be the same class everywhere."""
    return unicodedata.normalize("NFC", folder.name)


def _raise(error: OSError) -> None:
    raise error
