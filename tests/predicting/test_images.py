"""What `input` names where images are classified."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from tests.photos import photos
from thaw.errors import UserError
from thaw.predicting.images import read_images
from thaw.types import ImageSpec

SPEC = ImageSpec(8, 1, (0.5,), (0.5,))
PATHS = ["red/0.png", "blue/1.png"]


def read(source: str) -> list[str]:
    return list(read_images(source, "path", "utf-8-sig", True, SPEC).names)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "\n\n".join(PATHS).encode()),
        ("table.json", json.dumps([{"path": path} for path in PATHS]).encode()),
        ("table.csv.gz", gzip.compress("\n".join(["path", *PATHS]).encode(), mtime=0)),
    ],
)
def test_files_of_paths_are_read_relative_to_their_folder(tmp_path: Path, name: str, content: bytes) -> None:
    root = photos(tmp_path)
    (root / name).write_bytes(content)
    assert read(str(root / name)) == [str(root / path) for path in PATHS]


def test_paths_come_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO("\n".join([*PATHS, "/x/y.png"]).encode() + b"\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert read("-") == [*PATHS, "/x/y.png"]
    with pytest.raises(UserError, match="input=- holds no path"):
        read("-")


@pytest.mark.parametrize("source", ["", "absent", "absent.txt", "~nobody/here.png"])
def test_what_is_not_there_is_met_with_what_can_be_named(source: str) -> None:
    with pytest.raises(UserError, match="does not exist: name an image, a folder, a glob, a table"):
        read(source)


def test_folders_and_globs_without_an_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in that folder"):
        read(str(tmp_path))
    with pytest.raises(UserError, match=r"\*.png matches no file"):
        read(f"{tmp_path}/*.png")
