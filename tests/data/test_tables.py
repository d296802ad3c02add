"""Tables of images: columns, splits, paths; what is wrong with them is named with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.photos import photos
from thaw.config.assemble import split_data
from thaw.data.image_module import ImageDataModule
from thaw.data.table import read_table

Config = Callable[..., DictConfig]
Table = Callable[..., ImageDataModule]


@pytest.fixture
def table(config: Config, tmp_path: Path) -> Table:
    """The data of a table with this text, beside photographs of three colours."""
    root = photos(tmp_path)

    def build_source(text: str | bytes, *choices: str, name: str = "mine.csv") -> ImageDataModule:
        file = root / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        data = split_data(config("data=image_table", f"data.table={file}", *choices))
        assert isinstance(data, ImageDataModule)
        return data

    return build_source


def rows(separator: str = ",") -> str:
    return "".join(f"{c}/{i}.png{separator}{c}\n" for c in ("blue", "green", "red") for i in range(8))


def test_a_table_is_read_whatever_its_form(table: Table) -> None:
    csv = table("path,label\n" + rows())
    assert csv.class_names == ["blue", "green", "red"]
    assert len(csv.source.files) == 24
    others = [
        table("path\tlabel\n" + rows("\t"), name="mine.tsv"),
        table('"path";"label"\n' + rows(";")),
        table(b"\xef\xbb\xbfpath,label\r\n" + rows().replace("\n", "\r\n").encode(), name="bom.csv"),
        table(
            "".join(f'{{"path": "{c}/{i}.png", "label": "{c}"}}\n\n' for c in csv.class_names for i in range(8)),
            name="mine.jsonl",
        ),
        table("file,kind,x\n" + rows().replace("\n", ",1\n"), "data.path_column=file", "data.label_column=kind"),
    ]
    for other in others:
        assert [file.name for file in other.source.files] == [file.name for file in csv.source.files]
        assert other.targets.tolist() == csv.targets.tolist()


def test_a_column_of_splits_is_kept_to(table: Table) -> None:
    lines = [
        line + ("," + ("train" if i % 8 < 5 else "valid" if i % 8 < 7 else "test"))
        for i, line in enumerate(rows().split())
    ]
    data = table("path,label,split\n" + "\n".join(lines), "data.split_column=split")
    assert [data.labels.counts(part) for part in data.parts.values()] == [[5, 5, 5], [2, 2, 2], [1, 1, 1]]


HEAD = "path,label\n"


def test_a_relative_root_is_not_left_either(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert table(HEAD + rows(), "data.root=../photos").identity(0).name == "blue/0.png"
    assert table(HEAD + rows(), "data.root='~/photos'").identity(0).name == "blue/0.png"
    for root in (".", "../photos", "'~/photos'"):
        with pytest.raises(ValueError, match=r"the path ../secret.png leaves"):
            table(HEAD + rows() + "../secret.png,blue\n", f"data.root={root}")
    with pytest.raises(ValueError, match=r"the path ../secret.png leaves"):
        table(HEAD + rows() + "../secret.png,blue\n", "data.table=mine.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "has no rows"),
        ("file,label\n" + rows(), r"mine.csv, line 2: no column path, but file, label: type data.path_column="),
        (HEAD + "blue/0.png,\n" + rows(), "line 2: no label in column label"),
        (HEAD + rows() + ",blue\n", "line 26: no path in column path"),
        (HEAD + rows() + "../outside.png,blue\n", r"line 26: the path ../outside.png leaves .*data.root="),
        (HEAD + rows() + "/etc/passwd,blue\n", "line 26: the path /etc/passwd leaves"),
        (HEAD + rows() + "blue/0.png,red\n", r"blue/0.png is 'red' here and 'blue' in mine.csv, line 2"),
        (HEAD + rows() + "blue/99.png,blue\n", r"mine.csv, line 26: .*99.png: there is no such file"),
        (HEAD + rows() + "blue/0.png\n", "line 26: 1 values for 2 columns"),
        (HEAD + rows() + "blue/0.png,blue,3,4\n", "line 26: 4 values for 2 columns"),
        (HEAD + rows() + '"blue/0.png,blue\n', "line 26: unexpected end of data"),
        ((HEAD + rows() + "blue/é.png,blue\n").encode("latin-1"), "is not in utf-8-sig .*save it as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_with_its_line(table: Table, text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        table(text)


def test_all_wrong_rows_are_named_at_once(table: Table) -> None:
    with pytest.raises(ValueError, match=r"3 of 27 rows of .*mine.csv are wrong") as error:
        table(HEAD + rows() + ",blue\nblue/1.png,\n../x.png,red\n")
    assert len(str(error.value).splitlines()) == 4


def test_bad_splits_and_files_of_other_kinds(table: Table, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: split 'later' in column split: it is one of train, training, val"):
        table("path,label,split\nblue/0.png,blue,later\n", "data.split_column=split")
    with pytest.raises(ValueError, match=r"ends in .csv, .tsv, .json, .jsonl"):
        table("x", name="mine.xlsx")
    with pytest.raises(ValueError, match="is not a file"):
        read_table(tmp_path / "absent.csv", {"data.path_column": "path"})
    with pytest.raises(ValueError, match="line 2: not JSON"):
        table('{"path": "a", "label": "b"}\n{oops\n', name="mine.jsonl")
    with pytest.raises(ValueError, match="item 1: an object is expected"):
        table("[1, 2]\n", name="mine.jsonl")
