"""Copies files under another name: a word in their paths, and in their text, becomes another."""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path


def renamed(text: str, old: str, new: str) -> str:
    """A text with the word `old` replaced: in small letters, in capitals, and with a capital.

    The longer name that the package has on the package index becomes `new`, too. So would the second half of a plan's
    name, which is that of a paper (Felbo et al. 2017): it becomes chain_unfreeze.
    """
    for word, other in ((f"lightning-{old}", new), (f"chain_{old}", "chain_unfreeze")):
        text = text.replace(word, other)
    for spelling in (str.lower, str.upper, str.capitalize):
        text = text.replace(spelling(old), spelling(new))
    return text


def copy_renamed(files: Iterable[Path], source: Path, target: Path, old: str, new: str) -> None:
    """Copy files and links, given relative to the folder `source`, into the folder `target`.

    Files that are no text, such as weights, stay as they are.
    """
    for file in files:
        place = target / renamed(str(file), old, new)
        place.parent.mkdir(parents=True, exist_ok=True)
        if (source / file).is_symlink():
            place.symlink_to(renamed(os.readlink(source / file), old, new))
            continue
        content = (source / file).read_bytes()
        with suppress(UnicodeDecodeError):
            content = renamed(content.decode(), old, new).encode()
        place.write_bytes(content)
        shutil.copymode(source / file, place)


def files_below(folder: Path) -> list[Path]:
    """Files and links below a folder, relative to it; not those that its .gitignore names, as `*.ckpt` or `/runs/`."""
    gitignore = folder / ".gitignore"
    ignored = [".git", "__pycache__", *(gitignore.read_text(encoding="utf-8").split() if gitignore.is_file() else ())]
    files = []
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not _is_ignored(inside / name, ignored)]
        links = [name for name in folders if Path(place, name).is_symlink()]  # os.walk does not enter them
        files += [inside / name for name in (*names, *links) if not _is_ignored(inside / name, ignored)]
    return sorted(files)


def _is_ignored(path: Path, lines: Sequence[str]) -> bool:
    return any(str(path) == line.strip("/") if line.startswith("/") else path.match(line.strip("/")) for line in lines)
