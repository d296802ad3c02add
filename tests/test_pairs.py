"""Pairs of texts through every command: tokenised as by the library, trained, resumed, measured, exported, shown."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from tests.conftest import TINY
from tests.language import pairs, pretrained
from thaw.caching.cut import cut
from thaw.check import check
from thaw.config.assemble import assemble, run_with_weights, split_data
from thaw.config.recorded import read_config
from thaw.data.source import read_facts
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.exporting.run_onnx import pair
from thaw.models.heads import linear
from thaw.models.huggingface import huggingface
from thaw.models.network import Network
from thaw.models.weights import read_weights
from thaw.predict import predict
from thaw.train import train
from thaw.types import TokenSpec

transformers = pytest.importorskip("transformers")

Config = Callable[..., DictConfig]

QUIET = [choice for choice in TINY if not choice.startswith(("backbone", "data", "report"))]
TYPED = {"bert": True, "electra": True, "roberta": False, "distilbert": False, "gpt2": False, "xlm": False}
"""Whether a network tells the texts of a pair apart by their types."""
SAID = [("the film was great", "lovely ."), ("정말 " * 9, "a dull , boring film " * 3), ("awful", "최악 " * 40)]


def choices(tmp_path: Path, *backbone: str) -> list[str]:
    if not backbone:
        backbone = ("backbone=huggingface", f"backbone.name={pretrained(tmp_path / 'bert')}")
    table = ("data=text_table", f"data.table={pairs(tmp_path)}", "data.text=[first,second]", "data.label=same")
    return [*QUIET, *table, "data.batch_size=8", *backbone, "optimizer.lr=1e-2", "freezing.epochs=2"]


def spec_of(folder: Path, kind: str, **settings: int) -> TokenSpec:
    spec = huggingface(str(pretrained(folder / kind, kind, **settings))).input_spec
    assert isinstance(spec, TokenSpec)
    return replace(spec, pairs=True, max_length_tokens=14)


@pytest.mark.parametrize("kind", TYPED)
def test_pairs_are_tokenised_as_the_library_does(tmp_path: Path, kind: str) -> None:
    spec = spec_of(tmp_path, kind, **({"type_vocab_size": 1} if kind == "roberta" else {}))  # as published ones have it
    batch = tokenise(SAID, spec, pad_multiple_tokens=1).batch(range(3))
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
    expected = library(
        *map(list, zip(*SAID, strict=True)),
        **{"padding": True, "truncation": "longest_first", "max_length": 14, "return_tensors": "pt"},
        return_token_type_ids=True,
    )
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"][: 3 if TYPED[kind] else 2]
    for name, tensor in batch.items():
        assert torch.equal(tensor, expected[name]), name
    assert "token_type_ids" not in tokenise(["great"], replace(spec, pairs=False)).batch([0])


def features_of(folder: Path, kind: str) -> tuple[Network, dict[str, Tensor], TokenSpec]:
    backbone = huggingface(str(pretrained(folder, kind)))
    assert isinstance(backbone.input_spec, TokenSpec)
    spec = replace(backbone.input_spec, pairs=True)
    network = Network(backbone, linear(backbone.num_features, 2)).eval()
    return network, tokenise(SAID, spec).batch(range(3)), spec


@torch.no_grad()
def test_token_types_reach_the_network_also_from_the_cache(tmp_path: Path) -> None:
    network, inputs, spec = features_of(tmp_path, "bert")
    library = transformers.AutoModel.from_pretrained(tmp_path).eval()
    states, mask = library(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    features = network.features(inputs)
    assert torch.allclose(features, (states * mask).sum(1) / mask.sum(1), atol=1e-6)
    alike = {**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
    assert not torch.allclose(network.features(alike), features, atol=1e-3)
    halves = cut(network, spec, 2)
    assert halves is not None
    assert torch.equal(halves.suffix(halves.prefix(inputs)), features)


def test_a_tokenizer_with_other_types_than_the_network_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "bert")
    marks = json.loads(spec.tokenizer)
    for part in marks["post_processor"]["pair"][-2:]:
        next(iter(part.values()))["type_id"] = 2
    with pytest.raises(UserError, match="numbers up to 2, and the network knows 2: they do not belong together"):
        tokenise(SAID, replace(spec, tokenizer=json.dumps(marks)))


class Pairs:
    """A user's own source of pairs."""

    class_names = ("no", "yes")

    def __init__(self, *samples: object):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> object:
        return self.samples[index]


def test_a_source_gives_pairs_that_are_known_by_both_texts() -> None:
    facts = read_facts(Pairs((("a", "bc"), 0), (["ab", "c"], 1), (("bc", "a"), 1), (("a", "bc"), 1)))
    assert facts.texts == [("a", "bc"), ("ab", "c"), ("bc", "a"), ("a", "bc")]
    assert facts.digests is not None
    assert len(set(facts.digests)) == 3
    assert facts.digests[0] == facts.digests[3]
    assert facts.name(0) == "a | bc"
    with pytest.raises(UserError, match=r"sample 1 is 'ab' \(str\): expected a pair of texts, as sample 0 is one"):
        read_facts(Pairs((("a", "bc"), 0), ("ab", 1)))
    with pytest.raises(UserError, match=r"sample 1 is \('a', 'b'\) \(tuple\): expected a text \(str\), as sample 0"):
        read_facts(Pairs(("a", 0), (("a", "b"), 1)))


def test_bad_columns_and_rows_of_pairs_are_named(config: Config, tmp_path: Path) -> None:
    def checked(*typed: str) -> str:
        return check(
            config(*("data=text_table", f"data.table={tmp_path}/pairs.csv", "data.label=same", *typed), name="check")
        )

    content = pairs(tmp_path).read_text()
    assert "2 classes" in checked("data.text=[first,second]")
    (tmp_path / "pairs.csv").write_text(content + "so,,yes,me\n" + content.splitlines()[1] + "\n")
    with pytest.raises(UserError, match=r"pairs.csv, line 26: no text in column second"):
        checked("data.text=[first,second]")
    double = content.splitlines()[1].replace(",yes,", ",no,")
    (tmp_path / "pairs.csv").write_text(content + double + "\n")
    assert "1 groups of identical texts have different labels" in checked("data.text=[first,second]")
    with pytest.raises(UserError, match=r"no column third, but first, second, same, writer: type data.text=\.\.\."):
        checked("data.text=[first,third]")
    with pytest.raises(UserError, match=r"data.text=\[first,first\]: expected a column, or two different ones"):
        checked("data.text=[first,first]")


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """A finished run whose network's folder is gone by now."""
    train(config(*choices(tmp_path), "data.max_length_tokens=12", "callbacks.checkpoint.save_top_k=-1"))
    shutil.rmtree(tmp_path / "bert")
    return tmp_path / "run"


def test_every_command_takes_pairs(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    again = evaluate(config(f"run={run}", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    data = split_data(read_config(run))
    texts = data.texts  # type: ignore[attr-defined]
    assert "pairs are longer than 12 tokens" in (run / "data.txt").read_text()
    page = (run / "report.html").read_text()
    shown = [second for _, second in texts if f'<p class="excerpt" dir="auto">{second}' in page]
    assert shown, "a text of its own"

    with predict(config(f"run={run}", f"input={tmp_path}/pairs.csv", name="predict")).open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["text1"], row["text2"]) for row in rows] == texts
    parts = assemble(read_config(run), run_with_weights(str(run)))
    assert isinstance(parts.backbone.input_spec, TokenSpec)
    with torch.inference_mode():
        batch = tokenise(texts, parts.backbone.input_spec).batch(range(len(texts)))
        expected = parts.network(batch).softmax(1).numpy()
    found = [[float(row[f"p({name})"]) for name in ("no", "yes")] for row in rows]
    assert np.allclose(found, expected, atol=1e-5)
    (tmp_path / "lines.txt").write_text("great film\tdull\nonly one\n")
    predict(config(f"run={run}", f"input={tmp_path}/lines.txt", name="predict"))
    assert "lines.txt, line 2: 1 texts, where a pair is two with a tab between them" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"trained on pairs of texts: type column=\[<first>,<second>\]"):
        predict(config(f"run={run}", f"input={tmp_path}/pairs.csv", "column=first", name="predict"))
    with pytest.raises(
        UserError, match=r"trained on pairs of texts, and these data are single texts: type data.text=\["
    ):
        evaluate(config(f"run={run}", "+data.text=first", name="evaluate"))


def test_a_resumed_run_ends_with_the_same_bits(config: Config, run: Path) -> None:
    whole = read_weights(run / "weights.safetensors")
    first = next((run / "checkpoints").glob("best-*epoch000.ckpt"))
    torch.manual_seed(99)
    train(config(f"resume={first}"))
    again = read_weights(run / "weights.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("form", [pytest.param("safetensors", marks=pytest.mark.run), "onnx"])
def test_exports_take_pairs(config: Config, run: Path, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = export(config(f"run={run}", f"format={form}", "samples=8", name="export"))  # which compares it
    card = (file.parent / "model_card.md").read_text()
    assert "It classifies pairs of texts" in card
    assert "token ids, mask and token types" in card
    names = json.loads((file.parent / "tokenizer_config.json").read_text())["model_input_names"]
    assert names == ["input_ids", "attention_mask", "token_type_ids"]
    with pytest.raises(ValueError, match="'so' is no pair of texts: expected two, with a tab between them"):
        pair("so")


@pytest.mark.parametrize("units", ["words", "pieces"])
def test_a_gru_learns_a_separator(config: Config, tmp_path: Path, units: str) -> None:
    gru = ("backbone=gru", f"backbone.units={units}", "backbone.hidden_size=4", "freezing=full")
    train(config(*choices(tmp_path, *gru), "report=false"))
    parts = assemble(read_config(tmp_path / "run"), run_with_weights(str(tmp_path / "run")))
    spec = parts.backbone.input_spec
    assert isinstance(spec, TokenSpec)
    words = [(text, text) for text in ("great film", "dull")]
    ids = tokenise(words, spec, 1).batch(range(2))["input_ids"]
    alone = tokenise(["great film"], replace(spec, pairs=False), 1).batch([0])["input_ids"][0]
    assert ids[0].tolist()[: 2 * len(alone) + 1] == [*alone.tolist(), 2, *alone.tolist()]
    assert parts.samples.warnings() == []


def test_a_tokenizer_without_a_separator_is_warned_of(config: Config, tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "gpt2", "gpt2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    parts = assemble(config(*choices(tmp_path, "backbone=huggingface", f"backbone.name={folder}")))
    assert "puts nothing between the texts of a pair" in parts.samples.summary()
