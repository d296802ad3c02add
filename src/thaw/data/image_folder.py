"""Labelled image files in folders: root/<class>/* or root/{train,val,test}/<class>/*."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
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
        class_level: How deep the class folders lie: 1 in `root` or a split's folder, 2 in the folders in there, where
            those of one name are one class; None for 1, unless 2 may be meant as well.
        exclude: Names of folders and files that are not read, at any level; patterns like "*_mask.png", too.
        group: Regular expression that finds the group of an image, such as a patient, in its path below `root`; None if
            images do not belong together.

    Raises:
        UserError: if the folders are not laid out like this, or see `ImageFiles`.
    """

    def __init__(
        self,
        root: str,
        on_bad: str,
        max_value: int | None = None,
        class_level: int | None = None,
        exclude: Sequence[str] = (),
        group: str | None = None,
    ):
        folder, excluded = Path(root).expanduser(), Excluded(exclude)
        super().__init__(folder, *labelled_files(folder, class_level, excluded), on_bad, max_value, group)
        if unused := set(excluded.patterns) - excluded.matched:
            self.warnings.append(
                f"data.exclude: {', '.join(sorted(unused))} matches no folder and no image ('*_mask.png' is a pattern)"
            )


class Excluded:
    """Whether the name of a folder or file matches one of `patterns`. Remembers in `matched` which ones ever did."""

    def __init__(self, patterns: Iterable[str]):
        if isinstance(patterns, str):
            raise UserError(f"data.exclude is a list of names of folders and files: type data.exclude=[{patterns}]")
        self.patterns, self.matched = [str(pattern) for pattern in patterns], set[str]()

    def __call__(self, name: str) -> bool:
        """Whether it is excluded."""
        matching = [pattern for pattern in self.patterns if fnmatchcase(name, pattern)]
        self.matched.update(matching)
        return bool(matching)


NONE_EXCLUDED = Excluded(())


def labelled_files(
    root: Path, class_level: int | None, excluded: Callable[[str], bool]
) -> tuple[list[LabelledFile], list[str]]:
    """Return all images in the class folders of `root`, in a fixed order, and a line for each entry that is not used.

    Raises:
        UserError: if there are none, or other folders may be the classes.
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {problem}: name the folder that holds a folder for each class")
    notes: list[str] = []
    files: list[LabelledFile] = []
    for folder, split in _split_folders(root, class_level, excluded, notes).items():
        class_folders = [folder]
        for _ in range(class_level or 1):
            listed = [_entries(above, notes, excluded) for above in class_folders]
            class_folders = [subfolder for subfolders, _ in listed for subfolder in subfolders]
            notes += _notes_on_strays([stray for _, strays in listed for stray in strays])
        images_of = {class_folder: images_below(class_folder, notes, excluded) for class_folder in class_folders}
        if class_level is None:
            _require_one_reading(root, folder, images_of)
        for class_folder, images in images_of.items():
            if not images:
                notes.append(f"{class_folder} (a folder without images)")
            # macOS stores accents apart from their letters: equal names must be equal classes everywhere.
            label = unicodedata.normalize("NFC", class_folder.name)
            files += [LabelledFile(image, label, split) for image in images]
    if not files:
        levels = "*/" * ((class_level or 1) - 1)
        told = "" if class_level is None else f" (data.class_level={class_level})"
        above = f". If {root} is a class itself: data.root={root.parent}" if _entries(root, [], excluded)[1] else ""
        raise UserError(
            f"{root} has no images in folders: a folder for each class is expected, {root}/{levels}<class>/<image>, or "
            f"{root}/train/{levels}<class>/<image>{told}{above}" + "".join(f"\nnot used: {note}" for note in notes[:20])
        )
    return files, notes


def images_below(
    folder: Path, notes: list[str], excluded: Callable[[str], bool] = NONE_EXCLUDED, seen: set[Path] | None = None
) -> list[Path]:
    """Return all images in a folder and its subfolders, in a fixed order; links are followed.

    Args:
        folder: Where to look.
        notes: Takes a line for each entry that is not used.
        excluded: Whether entries of a name are not read.
        seen: Real paths of the folders that were read before; they are not read again.
    """
    seen = set() if seen is None else seen
    real = folder.resolve()
    if real in seen:
        notes.append(f"{folder} (a link to a folder that is read already)")
        return []
    seen.add(real)
    subfolders, images = _entries(folder, notes, excluded)
    for subfolder in subfolders:
        if real.is_relative_to(subfolder.resolve()):
            notes.append(f"{subfolder} (a link to a folder above)")
        else:
            images += images_below(subfolder, notes, excluded, seen)
    return images


def _split_folders(
    root: Path, class_level: int | None, excluded: Callable[[str], bool], notes: list[str]
) -> dict[Path, str | None]:
    """Return the folders that hold class folders, with their splits; `root` and None if it has no split folders."""
    splits: dict[str, list[Path]] = defaultdict(list)
    others: list[Path] = []
    folders, strays = _entries(root, [], excluded)
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is not None and _entries(folder, [], excluded)[0]:  # without subfolders it is a class called "train"
            splits[split].append(folder)
        else:
            others.append(folder)
    if not splits or ("train" not in splits and others):
        if class_level is None:
            _require_classes(root, folders, excluded)
        return {root: None}
    for folders_of_split in splits.values():
        if len(folders_of_split) > 1:
            raise UserError(f"{' and '.join(map(str, folders_of_split))} are the same split: keep one of them")
    notes += [f"{folder} (neither train, val nor test)" for folder in others]
    notes += _notes_on_strays(strays)
    return {splits[split][0]: split for split in sorted(splits)}


def _require_one_reading(root: Path, folder: Path, images_of: Mapping[Path, list[Path]]) -> None:
    """Raise UserError if the classes may lie deeper than in `folder`, `root` or that of a split.

    That is so if none of `images_of`, the class folders with all images below them, holds images of its own, and they
    share the names of their subfolders, or there is one of them only.
    """
    inside = {above: _folders_in(above, images) for above, images in images_of.items() if images}
    times = Counter(name for names in inside.values() for name in names)
    if "" in times:
        return
    upper, lower = ", ".join(above.name for above in inside), ", ".join(sorted(times))
    if len(inside) > 1 and len(times) > 1 and min(times.values()) > 1:
        raise UserError(
            f"{folder}: its folders {upper} hold no images of their own, and share the folders {lower}. If the classes "
            f"are\n  {upper}: type data.class_level=1, with data.exclude=[...] for those in them that are no samples\n"
            f"  {lower}: type data.class_level=2, with data.exclude=[...] for those above them that show the same again"
        )
    if len(inside) == 1:
        ((above, names),) = inside.items()
        images, level = images_of[above], 2
        while len(names) == 1 and "" not in names:
            above, level = above / names.pop(), level + 1
            names = _folders_in(above, images)
        if "" not in names:
            named = f"data.root={above}" if folder == root else f"data.class_level={level}"
            raise UserError(
                f"{folder} holds one folder only, and {above} holds {', '.join(sorted(names))}: type {named}"
            )


def _folders_in(above: Path, images: Iterable[Path]) -> set[str]:
    """Names of the folders in `above` that the images below it lie in; "" if some lie in `above` itself."""
    depth = len(above.parts)
    return {image.parts[depth] if len(image.parts) > depth + 1 else "" for image in images}


def _require_classes(root: Path, folders: list[Path], excluded: Callable[[str], bool]) -> None:
    """Raise UserError if a folder seems to be a split: by its name, or because it holds folders named like others."""
    names = {folder.name for folder in folders}
    for folder in folders:
        subfolders, images = _entries(folder, [], excluded)
        inside = {subfolder.name for subfolder in subfolders}
        named_like_split = not SPLIT_NAMES.keys().isdisjoint(re.split(r"[^a-z]+", folder.name.lower()))
        if not images and (inside & (names - {folder.name}) or (inside and named_like_split)):
            raise UserError(
                f"{folder} seems to be a split and no class: it holds the folders {', '.join(sorted(inside)[:5])}. "
                f"Name the splits {root}/train, {root}/val and {root}/test, with a folder for each class in them"
            )


def _entries(folder: Path, notes: list[str], excluded: Callable[[str], bool]) -> tuple[list[Path], list[Path]]:
    """Return subfolders and images of a folder, both sorted by name; to `notes` goes a line for each other entry."""
    subfolders, images = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in NOT_SHOWN:
                notes.append(f"{entry.path} (hidden)")
            elif excluded(entry.name):
                notes.append(f"{entry.path} (data.exclude)")
            elif entry.is_dir():
                subfolders.append(Path(entry.path))
            elif entry.name.lower().endswith(SUFFIXES):
                images.append(Path(entry.path))
            else:
                notes.append(f"{entry.path} (not an image by its name)")
    return subfolders, images


def _notes_on_strays(images: list[Path]) -> list[str]:
    return [f"{image} (outside the folders of the classes)" for image in images]
