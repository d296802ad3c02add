"""Tables of texts: read whatever their form, and refused with file, line and column."""

import gzip
import json
import sys
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from omegaconf import DictConfig
from pyarrow import parquet as pyarrow_parquet

from tests.language import WORDS, pretrained, texts
from thaw.check import check
from thaw.config.assemble import split_data
from thaw.data.sampler import EpochBatches, of_similar_length
from thaw.data.table import read_table
from thaw.data.text_module import TextDataModule
from thaw.data.tokens import tokenise
from thaw.models.huggingface import huggingface
from thaw.types import BatchRequest, ImageSpec, TokenSpec

Config = Callable[..., DictConfig]
Table = Callable[..., TextDataModule]


@pytest.fixture
def table(config: Config, tmp_path: Path) -> Table:
    """The data of a table with this content."""

    def build_source(content: str | bytes, *choices: str, name: str = "mine.csv") -> TextDataModule:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        data = split_data(config("data=text_table", f"data.table={file}", *choices))
        assert isinstance(data, TextDataModule)
        return data

    return build_source


@pytest.fixture
def spec(tmp_path: Path) -> TokenSpec:
    spec = huggingface(str(pretrained(tmp_path / "bert"))).input_spec
    assert isinstance(spec, TokenSpec)
    return spec


def rows(separator: str = ",") -> str:
    return "".join(f"{kind}{separator}{word} {i}\n" for kind in ("bad", "good") for i, word in enumerate(WORDS[kind]))


HEAD = "label,text\n"
KOREAN = "label,text\n" + "".join(f"{k},{w} 영화 {i}\n" for k in ("나쁨", "좋음") for i, w in enumerate(WORDS["bad"]))


def parquet(columns: dict[str, list[Any]]) -> bytes:
    file = BytesIO()
    pyarrow_parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def test_a_table_is_read_whatever_its_form(table: Table) -> None:
    plain = table(HEAD + rows())
    assert plain.class_names == ["bad", "good"]
    assert plain.texts[0] == "끔찍해 0"
    lines = [line.split(",") for line in rows().splitlines()]
    objects = json.dumps([{"text": text, "label": label} for label, text in lines], indent=2)
    others = [
        table("label\ttext\n" + rows("\t"), name="mine.tsv"),
        table(b"\xef\xbb\xbf" + (HEAD + rows()).replace("\n", "\r\n").encode(), name="bom.csv"),
        table("\n".join(f'{{"text": "{text}", "label": "{label}"}}' for label, text in lines), name="mine.jsonl"),
        table("label;text;a, b\n" + rows(";").replace("\n", ";1,5\n")),
        table('"label";"text"\r\n' + "".join(f'"{label}";"{text}"\r\n' for label, text in lines)),
        table("label|text\n" + rows("|")),
        table("label\ttext\n" + rows("\t")),
        table(objects, name="array.json"),
        table(gzip.compress(objects.encode()), name="array.json.gz"),
        table(json.dumps(json.loads(objects)), name="array.jsonl"),
        table((HEAD + rows()).replace("label,text", "kind,said"), "data.text=said", "data.label=kind"),
        table((HEAD + rows()).encode("cp949"), "data.encoding=cp949"),
        table((HEAD + rows()).encode("utf-16"), "data.encoding=utf-16"),
        table(gzip.compress((HEAD + rows()).encode()), name="mine.CSV.gz"),
        table(parquet({"label": [line[0] for line in lines], "text": [line[1] for line in lines]}), name="a.parquet"),
    ]
    for other in others:
        assert other.texts == plain.texts
        assert other.targets.tolist() == plain.targets.tolist()
    assert table(KOREAN).class_names == ["나쁨", "좋음"]
    numbers = "".join(f'{{"text": "{w}", "label": {i % 2}}}\n' for i, w in enumerate(WORDS["bad"] + WORDS["good"]))
    assert table(numbers, name="numbers.jsonl").class_names == ["0", "1"]


def test_quotes_and_newlines_in_fields(table: Table, tmp_path: Path) -> None:
    data = table(HEAD + rows() + 'good,"two\nlines, ""quoted"""\nbad,last\n')
    assert data.texts[-2:] == ['two\nlines, "quoted"', "last"]
    with pytest.raises(ValueError, match=r"mine.csv, line 16: no label in column label"):
        table(HEAD + rows() + 'good,"two\nlines"\n,last\n')
    unquoted = "label\ttext\n" + rows("\t") + 'good\t"so" they say\n'
    with pytest.raises(ValueError, match=r"line 14: .* type data.quotes=false"):
        table(unquoted, name="mine.tsv")
    assert table(unquoted, "data.quotes=false", name="mine.tsv").texts[-1] == '"so" they say'
    assert len(table(texts(tmp_path / "made").read_bytes()).texts) == 36


def test_a_folder_has_a_table_for_each_split(table: Table, tmp_path: Path) -> None:
    for name in ("dev.csv", "test.csv"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_text(HEAD + "bad,끔찍 \ngood,최고 \n")
    (tmp_path / "all/labels.json").write_text("[]")
    data = table(HEAD + rows(), f"data.table={tmp_path}/all", name="all/train.csv")
    assert [data.labels.counts(part) for part in data.parts.values()] == [[6, 6], [1, 1], [1, 1]]
    assert data.facts.notes == [f"{tmp_path}/all/labels.json (no table called train, val or test)"]
    with pytest.raises(ValueError, match=r"says it again: take one of them"):
        table(HEAD + rows(), f"data.table={tmp_path}/all", "data.split_column=split", name="all/train.csv")
    (tmp_path / "all/valid.csv.gz").write_bytes(gzip.compress(HEAD.encode()))
    with pytest.raises(ValueError, match=r"dev.csv and .*valid.csv.gz are the same split"):
        table(HEAD + rows(), f"data.table={tmp_path}/all", name="all/train.csv")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no table called train, val or test"):
        table(HEAD, f"data.table={tmp_path}/none")


def test_a_column_of_splits(table: Table) -> None:
    splits = ["train", "train", "train", "train", "valid", "Test"] * 2
    lines = [f"{line},{split}" for line, split in zip(rows().splitlines(), splits, strict=True)]
    data = table("label,text,split\n" + "\n".join(lines), "data.split_column=split")
    assert [data.labels.counts(part) for part in data.parts.values()] == [[4, 4], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match="line 2: split 'later' in column split: it is one of train, training, val"):
        table("label,text,split\nbad,x,later\n", "data.split_column=split")


BROKEN = {
    "empty file": ("", "mine.csv has no rows"),
    "header only": (HEAD, "mine.csv has no rows"),
    "other columns": (
        "kind,said\n" + rows(),
        r"mine.csv, line 2: no column text, label, but kind, said: type data.text=... data.label=...",
    ),
    "semicolons": ("kind;text\n" + rows(";"), "line 2: no column label, but kind, text: type data.label="),
    "a column twice": ("label,text,text\n", "mine.csv, line 1: the column text is there more than once"),
    "no text": (HEAD + rows() + "bad, \n", "mine.csv, line 14: no text in column text"),
    "no label": (HEAD + rows() + ",fine\n", "mine.csv, line 14: no label in column label"),
    "a value too few": (HEAD + rows() + "bad\n", "mine.csv, line 14: 1 values for 2 columns"),
    "a value too many": (HEAD + rows() + "bad,so,what\n", "mine.csv, line 14: 3 values for 2 columns"),
    "a quote left open": (
        HEAD + rows() + 'bad,"what\n',
        r"mine.csv, line 14: unexpected end of data .*data.quotes=false",
    ),
    "text behind a quote": (HEAD + 'bad,"what" else\n' + rows(), "mine.csv, line 2: ',' expected after '\"'"),
    "another encoding": ((HEAD + rows()).encode("cp949"), r"is not in utf-8-sig \(line 2\): save it as UTF-8, or type"),
    "UTF-16": ((HEAD + rows()).encode("utf-16"), "or type data.encoding=utf-16"),
    "one class": (HEAD + rows().split("good")[0], r"at least two classes to tell apart, but this data has \['bad'\]"),
    "a label written in two ways": (
        HEAD + rows() + "Bad,so\n",
        r"each class needs .* Bad \(1\)(?s:.*)written:\n  'Bad' = 'bad'",
    ),
    "a class that only the test split writes so": (
        "label,text,split\n" + "".join(f"{i % 2},{i},train\n{i % 2}.0,{i + 20},test\n" for i in range(20)),
        r"no training sample of the class 0.0, 1.0(?s:.*)  '0' = '0.0'\n  '1' = '1.0'",
    ),
    "a label that is not a number": (HEAD + rows() + "nan,so\n", "mine.csv, line 14: no label in column label"),
    "a rare class": (HEAD + rows() + "new,only one\n", r"each class needs at least 3 different samples.*new \(1\)"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_is_named_with_file_line_and_column(table: Table, fault: str) -> None:
    content, said = BROKEN[fault]
    with pytest.raises(ValueError, match=said):
        table(content, *(["data.split_column=split"] if "split" in str(content)[:20] else []))


def test_a_label_written_in_several_ways_is_reported(table: Table) -> None:
    lines = "".join(f'{{"text": "{i}", "label": {[0, 0.0, 1, "true", "TRUE"][i % 5]!r}}}\n' for i in range(50))
    (warning,) = table(lines.replace("'", '"'), name="mine.jsonl").warnings()
    assert warning.splitlines()[1:] == ["  '0' = '0.0'", "  'TRUE' = 'true'"]
    assert "class" in warning.splitlines()[0]


LINES = "".join(f'{{"text": "{w}", "label": {i % 2}}}\n' for i, w in enumerate(WORDS["bad"] + WORDS["good"]))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", r"mine.jsonl, line 13: not JSON \(.*\)"),
        ("[1, 2]", r"line 13: an object is expected, {...}, not \[1, 2\]"),
        ('{"text": ["a"], "label": 1}', r'line 13: column text holds \["a"\], and no single value'),
        ('{"text": null, "label": 1}', "line 13: no text in column text"),
        ('{"text": NaN, "label": 1}', "line 13: no text in column text"),
        ('{"text": "so", "label": NaN}', "line 13: no label in column label"),
        ('{"text": "so", "label": "<NA>"}', "line 13: no label in column label"),
        ('{"label": 1}', r"line 13: no column text"),
        ('{"text": "\\ud83d", "label": 1}', r"line 13: column text holds half a character"),
    ],
)
def test_what_is_wrong_with_json_lines(table: Table, line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        table(LINES + line + "\n", name="mine.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "mine.json has no rows"),
        (
            '[{"text": "so", "label": 1}, "so", [1]]',
            r'item 2: an object is expected, {...}, not "so"(?s:.*)item 3: .*\[1',
        ),
        ('{"data": [{"text": "so", "label": 1}]}', r"item 1: no column text, label, but data: type data.text"),
        ('[{"text": "so", "label": 1},', "mine.json is not JSON: Expecting value"),
    ],
)
def test_what_is_wrong_with_a_json_array(table: Table, content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        table(content, name="mine.json")


@pytest.mark.parametrize("name", ["mine.parquet", "mine.parquet.gz"])
def test_what_is_wrong_with_parquet_is_named_with_its_row(table: Table, name: str) -> None:
    def content(**columns: list[Any]) -> bytes:
        return gzip.compress(parquet(columns)) if name.endswith(".gz") else parquet(columns)

    with pytest.raises(ValueError, match=f"{name}, row 1: no label in column label"):
        table(content(text=["so"], label=[float("nan")]), name=name)
    texts = ["so", "and", None, "so", " "]
    with pytest.raises(ValueError, match=rf"3 of 5 rows of .*(?s:.*){name}, row 3: no text in column text") as error:
        table(content(text=texts, label=[1, 2, 3, None, 4]), name=name)
    assert f"{name}, row 4: no label in column label\n  {name}, row 5: no text" in str(error.value)
    data = table(content(text=[f"a {i}" for i in range(20)], label=[1, 0] * 10), name=name)
    assert data.class_names == ["0", "1"], "whole numbers stay whole"
    with pytest.raises(ValueError, match=r"row 1: no column label, but text, kind: type"):
        table(content(text=["a"], kind=["b"]), name=name)
    for nested, shown in (([["a"]], r'\["a"\]'), ([b"a"], "\"b'a'\""), ([{"a": 1}], '{"a": 1}')):
        with pytest.raises(ValueError, match=f"row 1: column text holds {shown}, and no single value"):
            table(content(text=nested, label=[1]), name=name)


def test_files_that_are_not_what_their_names_say(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.compress((HEAD + rows()).encode())
    for broken in (whole[:-20], b"label,text", whole[:20] + b"x" * 20 + whole[40:]):
        with pytest.raises(ValueError, match=r"mine.csv.gz is not a whole gzip file \(.*\): compress it again"):
            table(broken, name="mine.csv.gz")
    with pytest.raises(ValueError, match=r"mine.csv.gz is not in utf-8-sig \(line 2\)"):
        table(gzip.compress((HEAD + rows()).encode("cp949")), name="mine.csv.gz")
    for broken in (b"", b"PAR1", parquet({"text": ["a"] * 99})[:-9]):
        with pytest.raises(ValueError, match=r"mine.parquet cannot be read as parquet"):
            table(broken, name="mine.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"mine.parquet needs pyarrow to be read: pip install pyarrow"):
        table(parquet({"text": ["a"]}), name="mine.parquet")


@pytest.mark.parametrize(("separator", "suffix"), [(",", "csv"), ("\t", "tsv")])
def test_values_stay_the_texts_they_are(tmp_path: Path, separator: str, suffix: str) -> None:
    values = ["NA", "null", "None", "nan", "1e3", "007", "1.0", "True", "#N/A", "", " a ", "\u2028x\x85"]
    file = tmp_path / f"mine.{suffix}"
    file.write_text("text" + separator + "label\n" + "".join(f"{value}{separator}{value}\n" for value in values))
    rows = read_table(file, {"data.text": "text"})
    assert [row.values for row in rows] == [{"text": value, "label": value} for value in values]


def test_all_wrong_rows_are_named_at_once_or_left_out(table: Table, config: Config) -> None:
    content = HEAD + rows() + "bad,\n,what\nbad,a,b\n"
    with pytest.raises(
        ValueError, match=r"3 of 15 rows of .*mine.csv are wrong:(?s:.*)type data.on_bad=leave_out"
    ) as error:
        table(content)
    assert len(str(error.value).splitlines()) == 5
    data = table(content, "data.on_bad=leave_out")
    assert len(data.texts) == 12
    assert "3 samples were left out" in data.summary()
    assert "mine.csv, line 15: no label in column label" in data.report()
    file = str(error.value).split("rows of ")[1].split(" are")[0]
    with pytest.raises(ValueError, match=r"3 samples cannot be used.*Without them:(?s:.*)2 classes") as reported:
        check(config("data=text_table", f"data.table={file}", name="check"))
    assert "line 16: 3 values for 2 columns" in str(reported.value)


def test_columns_that_nobody_named_may_be_as_they_are(table: Table) -> None:
    content = "label,text,,\n" + "".join(f"{line},,\n" for line in rows().splitlines())
    assert len(table(content).texts) == 12


def test_a_key_that_some_lines_lack_is_their_fault(table: Table) -> None:
    with pytest.raises(ValueError, match=r"1 of 13 rows of .*\n  mine.jsonl, line 13: no column label"):
        table(LINES + '{"text": "so"}\n', name="mine.jsonl")
    assert len(table(LINES + '{"text": "so"}\n', "data.on_bad=leave_out", name="mine.jsonl").texts) == 12


def test_quotes_that_swallow_a_row_are_noticed(table: Table) -> None:
    content = "label\ttext\n" + rows("\t") + 'bad\t"I loved it\ngood\tso bad"\ngood\tyo\n'
    with pytest.raises(
        ValueError, match=r"line 14: a quoted field goes on over a tab into the next line: .*quotes=false"
    ):
        table(content, name="mine.tsv")
    assert len(table(content, "data.quotes=false", name="mine.tsv").texts) == 15


def test_words_that_the_tokenizer_does_not_know_are_reported(table: Table, spec: TokenSpec) -> None:
    data = table(HEAD + rows().replace("끔찍해", "zzz yyy xxx www") + "bad,\u200b\n")
    data.use_input_spec(spec)
    assert "of all tokens are unknown to the tokenizer" in data.report()
    assert tokenise(["", " ", "film"], spec).empty.tolist() == [True, True, False]


def test_other_faults_of_choice(table: Table, tmp_path: Path) -> None:
    for choices, said in (
        (["data.encoding=klingon"], "data.encoding=klingon is unknown"),
        (["data.label=text"], "both name the column text"),
        ([f"data.table={tmp_path}/absent.csv"], "absent.csv is not a file"),
    ):
        with pytest.raises(ValueError, match=said):
            table(HEAD + rows(), *choices)
    with pytest.raises(
        ValueError, match=r"is no table by its name: .* ends in .csv, .tsv, .json, .jsonl, .parquet, or one.*as .csv"
    ):
        table(HEAD + rows(), name="mine.xlsx")


def test_leaks_and_contradictions_are_reported(table: Table) -> None:
    samples = "bad,same,train good,same,train bad,twice,train bad,twice,test good,x,test good,z,val bad,q,val"
    report = table("\n".join(["label,text,split", *samples.split()]), "data.split_column=split").report()
    assert "1 groups of identical texts lie in different splits, so scores will flatter:\n  twice = twice" in report
    assert "1 groups of identical texts have different labels:\n  same = same" in report


def test_texts_are_cut_and_the_cut_ones_counted(table: Table, spec: TokenSpec) -> None:
    data = table(HEAD + rows() + f"bad,{'the film ' * 30}\ngood,{'great ' * 4}\n", "data.max_length_tokens=5")
    data.use_input_spec(spec)
    assert "2 of 14 texts are longer than 5 tokens" in data.report()
    assert data.lengths.max() == 5
    assert data.input_spec.max_length_tokens == 5
    with pytest.raises(ValueError, match=r"takes texts of at most 40 tokens: type data.max_length_tokens=40"):
        table(HEAD + rows(), "data.max_length_tokens=41").use_input_spec(spec)
    with pytest.raises(ValueError, match=r"adds 2 tokens to each. Type data.max_length_tokens=3 or more"):
        table(HEAD + rows(), "data.max_length_tokens=2").use_input_spec(spec)
    with pytest.raises(ValueError, match="the backbone reads images, and the data are texts"):
        data.use_input_spec(ImageSpec(8, 1, (0.5,), (0.5,)))


def test_batches_hold_the_tokens_of_their_texts_and_padding(spec: TokenSpec) -> None:
    said = ["최고 film", "the 영화 was awful . " * 3, "", "never seen"]
    tokens = tokenise(said, spec)
    batch = tokens.batch([1, 0, 3])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 24)
    assert batch["attention_mask"].sum(1).tolist() == [17, 4, 4]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == spec.pad_id).all()
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    library = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(spec.tokenizer))
    for text, ids, mask in zip((said[1], said[0], said[3]), *batch.values(), strict=True):
        assert ids[mask == 1].tolist() == library(text)["input_ids"]
    assert tokens.batch([0])["input_ids"].shape == (1, 8)
    assert tokenise(said, spec, pad_multiple_tokens=1).batch([0])["input_ids"].shape == (1, 4)
    assert tokenise(["the " * 99], spec).batch([0])["input_ids"].shape == (1, 40), "never beyond what the network takes"


def test_in_the_order_of_the_table_where_nothing_is_shuffled(table: Table, spec: TokenSpec) -> None:
    data = table(HEAD + rows(), "data.shuffle=false", "data.batch_size=3")
    data.use_input_spec(spec)
    assert [i for batch in data.train_dataloader() for i in batch.index.tolist()] == data.train_indices.tolist()


def test_samples_are_known_by_their_content(table: Table) -> None:
    data = table(HEAD + rows())
    backwards = [line.split(",") for line in reversed(rows().splitlines())]
    moved = table("text,label\n" + "".join(f"{text},{label}\n" for label, text in backwards))
    assert {data.identity(i) for i in range(12)} == {moved.identity(i) for i in range(12)}
    moved.split_as(data.records())
    for name, part in data.parts.items():
        assert {data.texts[i] for i in part} == {moved.texts[i] for i in moved.parts[name]}


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_of_similar_length_show_every_sample_once(shuffle: bool) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 60, 1000)
    sampler = EpochBatches(np.arange(1000), 16, seed=3, shuffle=shuffle, lengths=lengths)
    seen = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = [key.indices for key in sampler]
        assert sorted(i for batch in batches for i in batch) == list(range(1000))
        assert len(batches) == len(sampler)
        padding = sum(len(b) * lengths[b].max() - lengths[b].sum() for b in batches)
        assert padding < 0.1 * lengths.sum()
        longest = [lengths[batch].max() for batch in batches]
        shorter_than_the_last = sum(b < a for a, b in pairwise(longest))
        assert shorter_than_the_last > 15 if shuffle else shorter_than_the_last == 0
        seen.append(batches)
    assert (seen[0] == seen[1]) == (not shuffle)
    if shuffle:
        companions = [{frozenset(batch) for batch in batches} for batches in seen]
        assert len(companions[0] & companions[1]) < 5, "others meet in the next epoch"
        sampler.set_epoch(0)
        assert [key.indices for key in sampler] == seen[0]


def test_the_order_is_the_same_on_any_number_of_ranks() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    whole = [set(k.indices) for k in EpochBatches(np.arange(100), 8, 1, True, lengths=lengths)]
    shares = [list(EpochBatches(np.arange(100), 4, 1, True, rank, 2, lengths=lengths)) for rank in (0, 1)]
    assert [set(a.indices) | set(b.indices) for a, b in zip(*shares, strict=True)] == whole


def test_few_batches_are_sorted_throughout() -> None:
    lengths = np.array([5, 1, 4, 2])
    assert [b.tolist() for b in of_similar_length(np.arange(4), lengths, 2, None)] == [[1, 3], [2, 0]]


def test_a_loader_gives_batches_of_texts(table: Table, spec: TokenSpec) -> None:
    data = table(HEAD + rows(), "data.batch_size=3")
    data.use_input_spec(spec)
    for batch in data.train_dataloader():
        assert set(batch.inputs) == {"input_ids", "attention_mask"}
        again = data.dataset()[BatchRequest(batch.index.tolist(), None)]
        assert torch.equal(again.inputs["input_ids"], batch.inputs["input_ids"])
        assert torch.equal(batch.target, torch.from_numpy(data.targets)[batch.index])
