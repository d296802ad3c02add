"""Labelled image files in folders: root/<class>/* or root/{train,val,test}/<class>/*."""

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from thaw.data.image_file import SUFFIXES
from thaw.data.image_files import ImageFiles, LabelledFile
from thaw.data.splits import SPLIT_NAMES
from thaw.errors import UserError

NOT_SHOWN = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""Files and folders that operating systems add; they are skipped like those whose name begins with a dot."""


class ImageFolder(ImageFiles):
    """Source of images in a folder for each class.

    Args:
        root: Folder of the class folders, or of folders train, val and test that hold them. A split that is missing is
            cut from train.
        on_bad: What to do if images cannot be loaded: "error" or "leave_out".
        max_value: Value of grey 16-bit images that is white; None for 65535.

    Raises:
        UserError: if the folders are not laid out like this, or see `ImageFiles`.
    """

    def __init__(self, root: str, on_bad: str, max_value: int | None = None):
        folder = Path(root).expanduser()
        super().__init__(folder, *labelled_files(folder), on_bad, max_value)


def labelled_files(root: Path) -> tuple[list[LabelledFile], list[str]]:
    """Return all images in the class folders of `root`, in a fixed order, and a line for each entry that is not used.

    Raises:
        UserError: if there are none.
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {problem}: name the folder that holds a folder for each class")
    notes: list[str] = []
    files: list[LabelledFile] = []
    for folder, split in _split_folders(root, notes).items():
        class_folders, strays = _entries(folder, notes)
        notes += _notes_on_strays(strays)
        for class_folder in class_folders:
            images = images_below(class_folder, notes)
            if not images:
                notes.append(f"{class_folder} (a folder without images)")
            # macOS stores accents apart from their letters: equal names must be equal classes everywhere.
            label = unicodedata.normalize("NFC", class_folder.name)
            files += [LabelledFile(image, label, split) for image in images]
    if not files:
        raise UserError(
            f"{root} has no images in folders: a folder for each class is expected, {root}/<class>/<image>, or "
            f"{root}/train/<class>/<image>" + "".join(f"\nnot used: {note}" for note in notes[:20])
        )
    return files, notes


def images_below(folder: Path, notes: list[str], seen: set[Path] | None = None) -> list[Path]:
    """Return all images in a folder and its subfolders, in a fixed order; links are followed.

    Args:
        folder: Where to look.
        notes: Takes a line for each entry that is not used.
        seen: Real paths of the folders that were read before; they are not read again.
    """
    seen = set() if seen is None else seen
    real = folder.resolve()
    if real in seen:
        notes.append(f"{folder} (a link to a folder that is read already)")
        return []
    seen.add(real)
    subfolders, images = _entries(folder, notes)
    for subfolder in subfolders:
        if real.is_relative_to(subfolder.resolve()):
            notes.append(f"{subfolder} (a link to a folder above)")
        else:
            images += images_below(subfolder, notes, seen)
    return images


def _split_folders(root: Path, notes: list[str]) -> dict[Path, str | None]:
    """Return the folders that hold class folders, with their splits; `root` and None if it has no split folders."""
    splits: dict[str, list[Path]] = defaultdict(list)
    others: list[Path] = []
    folders, strays = _entries(root, [])
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is not None and _entries(folder, [])[0]:  # without subfolders it is a class called "train"
            splits[split].append(folder)
        else:
            others.append(folder)
    if not splits or ("train" not in splits and others):
        _require_classes(root, folders)
        return {root: None}
    for folders_of_split in splits.values():
        if len(folders_of_split) > 1:
            raise UserError(f"{' and '.join(map(str, folders_of_split))} are the same split: keep one of them")
    notes += [f"{folder} (neither train, val nor test)" for folder in others]
    notes += _notes_on_strays(strays)
    return {splits[split][0]: split for split in sorted(splits)}


def _require_classes(root: Path, folders: list[Path]) -> None:
    """Raise UserError if a folder seems to be a split: by its name, or because it holds folders named like others."""
    names = {folder.name for folder in folders}
    for folder in folders:
        subfolders, images = _entries(folder, [])
        inside = {subfolder.name for subfolder in subfolders}
        named_like_split = not SPLIT_NAMES.keys().isdisjoint(re.split(r"[^a-z]+", folder.name.lower()))
        if not images and (inside & (names - {folder.name}) or (inside and named_like_split)):
            raise UserError(
                f"{folder} seems to be a split and no class: it holds the folders {', '.join(sorted(inside)[:5])}. "
                f"Name the splits {root}/train, {root}/val and {root}/test, with a folder for each class in them"
            )


def _entries(folder: Path, notes: list[str]) -> tuple[list[Path], list[Path]]:
    """Return subfolders and images of a folder, both sorted by name; to `notes` goes a line for each other entry."""
    subfolders, images = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in NOT_SHOWN:
                notes.append(f"{entry.path} (hidden)")
            elif entry.is_dir():
                subfolders.append(Path(entry.path))
            elif entry.name.lower().endswith(SUFFIXES):
                images.append(Path(entry.path))
            else:
                notes.append(f"{entry.path} (not an image by its name)")
    return subfolders, images


def _notes_on_strays(images: list[Path]) -> list[str]:
    return [f"{image} (outside the folders of the classes)" for image in images]
