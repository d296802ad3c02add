"""What `input` names where texts are classified: a file that exists is read or refused, and never a text itself."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from tests.language import pretrained
from thaw.errors import UserError
from thaw.models.huggingface import huggingface
from thaw.predicting.texts import read_texts
from thaw.types import TokenSpec

SAID = ["great film, really", "최악"]
JSON = json.dumps([{"text": text} for text in SAID], indent=1, ensure_ascii=False).encode()
LINES = "\n".join(SAID).encode()
CSV = b'text;id\n"great film, really";1\n' + "최악;2\n".encode()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TokenSpec:
    spec = huggingface(str(pretrained(tmp_path_factory.mktemp("network")))).input_spec
    assert isinstance(spec, TokenSpec)
    return spec


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command is typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(source: str, spec: TokenSpec) -> list[str]:
    return list(read_texts(source, "text", "utf-8-sig", True, spec).names)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.txt", LINES),
        ("LINES.TXT", LINES.replace(b"\n", b"\r\n") + b"\r\n"),
        ("lines.txt.gz", gzip.compress(LINES, mtime=0)),
        ("table.json", JSON),
        ("table.json.gz", gzip.compress(JSON, mtime=0)),
        ("table.csv", CSV),
        ("table.csv.gz", gzip.compress(CSV, mtime=0)),
    ],
)
def test_files_of_known_kinds_are_read(folder: Path, spec: TokenSpec, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert read(name, spec) == SAID


def test_lines_come_from_standard_input(spec: TokenSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES), encoding="ascii"))
    assert read("-", spec) == SAID


@pytest.mark.parametrize("name", ["reviews.xlsx", "reviews.html", "reviews", "what's up?", "table.csv/", "a/ü"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_other_files_and_folders_are_refused_with_what_to_type(
    folder: Path, spec: TokenSpec, name: str, is_folder: bool
) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    if is_folder or name.endswith("/"):
        file.mkdir()
    else:
        file.write_bytes(b"PK")
    problem = "a folder" if file.is_dir() else "a file of a kind that is not read"
    for source in (name, str(file)):
        with pytest.raises(UserError, match=rf"is {problem}: texts are read from a table .*\.csv.*input=-"):
            read(source, spec)


@pytest.mark.parametrize("name", ["absent.csv", "my texts.xlsx", "absent.json", "absent.txt.gz", "texts/*.csv"])
def test_a_file_that_is_not_there_is_no_text(spec: TokenSpec, name: str) -> None:
    with pytest.raises(UserError, match="does not exist: texts are read from"):
        read(name, spec)


def test_a_pattern_of_files_is_no_text(folder: Path, spec: TokenSpec) -> None:
    (folder / "a.html").write_text("so")
    with pytest.raises(UserError, match=r"is a pattern of files \(a.html ...\)"):
        read("*.html", spec)


@pytest.mark.parametrize(
    "text", ["what's up?", "[so] *great*", "~nobody likes it", "and/or " * 99, "see a.csv for more", " "]
)
def test_anything_else_is_the_text(spec: TokenSpec, text: str) -> None:
    assert read(text, spec) == [text]
