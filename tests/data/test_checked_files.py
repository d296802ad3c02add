"""Files that were found whole are not decoded again; all that may be otherwise is."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.photos import photos
from thaw.caching.store import entries, prune
from thaw.data import image_files
from thaw.data.image_files import CheckedFile, check_files

LONG_AGO = 1_000_000_000

Look = Callable[[], list[CheckedFile]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = photos(tmp_path, per_class=2)
    for file in root.rglob("*.png"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []
    real = image_files.find_fault

    def find_fault(content: bytes, file: Path) -> str | None:
        names.append(f"{file.parent.name}/{file.name}")
        return real(content, file)

    monkeypatch.setattr(image_files, "find_fault", find_fault)
    return names


@pytest.fixture
def look(root: Path) -> Look:
    return lambda: check_files(sorted(root.rglob("*.png")), root)


def test_a_second_look_decodes_nothing(
    root: Path, look: Look, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look()
    assert len(decoded) == len(first) == 6
    monkeypatch.chdir(root.parent)
    again = check_files(sorted(Path("photos").rglob("*.png")), Path("photos"))
    assert len(decoded) == 6
    assert again == first


@pytest.mark.parametrize("same", ["size", "time", "both"])
def test_a_changed_file_is_check_files(root: Path, look: Look, decoded: list[str], same: str) -> None:
    file = root / "red/0.png"
    first = look()
    content = file.read_bytes()
    # At the end of a PNG, where its decoder does not look.
    file.write_bytes(content + b"x" if same == "time" else content[:-1] + b"x")
    if same != "size":
        os.utime(file, (LONG_AGO, LONG_AGO))
    decoded.clear()
    again = look()
    assert decoded == ["red/0.png"]
    changed = [one.digest != other.digest for one, other in zip(first, again, strict=True)]
    assert changed == [False] * 4 + [True, False]


def test_other_times_of_the_same_content_are_remembered_in_turn(root: Path, look: Look, decoded: list[str]) -> None:
    first = look()
    os.utime(root / "red/0.png", (LONG_AGO + 1, LONG_AGO + 1))
    decoded.clear()
    assert look() == look() == first
    assert decoded == ["red/0.png"]


def test_a_faulty_file_is_looked_into_each_time(root: Path, look: Look, decoded: list[str]) -> None:
    file = root / "blue/0.png"
    file.write_bytes(file.read_bytes()[:100])
    os.utime(file, (LONG_AGO, LONG_AGO))
    first = look()
    assert first[0].fault is not None
    decoded.clear()
    assert look() == first
    assert decoded == ["blue/0.png"]


def test_what_changed_just_now_is_not_remembered(root: Path, look: Look, decoded: list[str]) -> None:
    Image.new("RGB", (4, 4)).save(root / "red/new.png")
    look()
    decoded.clear()
    look()
    assert decoded == ["red/new.png"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"seal": 1}', '{"files": {}, "seal": ""}', "deep", "\udcff"])
def test_a_damaged_memory_is_none(look: Look, decoded: list[str], cache_folder: Path, damage: str) -> None:
    first = look()
    (memory,) = cache_folder.glob("*")
    memory.write_text("[" * 100_000 if damage == "deep" else damage, errors="surrogateescape")
    assert look() == first
    assert len(decoded) == 12
    assert look() == first
    assert len(decoded) == 12, "it was written anew"


def test_a_changed_digest_in_the_memory_is_noticed(look: Look, decoded: list[str], cache_folder: Path) -> None:
    first = look()
    (memory,) = cache_folder.glob("*")
    content = json.loads(memory.read_text())
    content["files"] = {file: one[:-1] + ("0" if one[-1] != "0" else "1") for file, one in content["files"].items()}
    memory.write_text(json.dumps(content))
    assert look() == first


def test_another_pillow_may_think_otherwise(look: Look, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    look()
    monkeypatch.setattr("PIL.__version__", "99")
    look()
    assert len(decoded) == 12


@pytest.mark.parametrize("fault", ["a file", "full"])
def test_a_folder_that_cannot_be_written_is_no_memory(
    look: Look, decoded: list[str], cache_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    if fault == "a file":
        cache_folder.touch()
    else:
        monkeypatch.setattr(os, "replace", full)
    assert look() == look()
    assert len(decoded) == 12
    assert list(cache_folder.glob("*")) == []


def test_files_named_earlier_are_kept_in_mind(root: Path, look: Look, decoded: list[str]) -> None:
    look()
    Image.new("RGB", (4, 4)).save(root / "red/new.png")
    os.utime(root / "red/new.png", (LONG_AGO, LONG_AGO))
    check_files([root / "red/new.png"], root)
    decoded.clear()
    look()
    assert decoded == []


def test_it_counts_among_what_is_kept(look: Look, cache_folder: Path) -> None:
    look()
    (entry,) = entries(cache_folder)
    assert entry.num_bytes == entry.path.stat().st_size > 0
    assert entry.about["what"] == "image files that were checked"
    (cache_folder / "others.json").touch()
    assert prune(cache_folder, 0) == [entry]
    assert [path.name for path in cache_folder.glob("*")] == ["others.json"]
