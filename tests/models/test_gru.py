import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from thaw.caching.cut import cut
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.models.backbone import Backbone
from thaw.models.gru import gru
from thaw.models.gru_network import GRULayer, reversed_order
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.models.pooling import POOLINGS
from thaw.models.vocabulary import token_ids
from thaw.types import TokenSpec

pytest.importorskip("tokenizers")

TEXTS = ["the cat sat on the mat", "정말 재미있는 영화", "a dog, a cat", "영화 the end"]
CHOICES: dict[str, Any] = {
    "weights": None,
    "units": "words",
    "vocabulary_size": 50,
    "embedding_size": 6,
    "hidden_size": 5,
    "num_layers": 2,
    "dropout": 0.0,
    "pooling": "mean",
}


def tiny(texts: list[str] = TEXTS, **choices: Any) -> Backbone:
    return gru(**{**CHOICES, **choices}, texts=texts)


def spec_of(backbone: Backbone) -> TokenSpec:
    assert isinstance(backbone.input_spec, TokenSpec)
    return backbone.input_spec


def batch_of(backbone: Backbone, texts: list[str]) -> dict[str, Tensor]:
    return tokenise(texts, spec_of(backbone)).batch(range(len(texts)))


def features(backbone: Backbone, inputs: dict[str, Tensor]) -> Tensor:
    return Network(backbone, nn.Identity()).eval().features(inputs)


def padded(inputs: dict[str, Tensor], by: int) -> dict[str, Tensor]:
    return {name: nn.functional.pad(value, (0, by)) for name, value in inputs.items()}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_depend_neither_on_padding_nor_on_company(pooling: str) -> None:
    backbone = tiny(pooling=pooling)
    together = features(backbone, padded(batch_of(backbone, TEXTS), 9))
    assert together.shape == (4, backbone.num_features) == (4, 10)
    for text, expected in zip(TEXTS, together, strict=True):
        alone = tokenise([text], spec_of(backbone))
        ids = torch.from_numpy(alone.ids)[None].long()
        found = features(backbone, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


def test_a_layer_is_the_packed_one_of_torch() -> None:
    layer, packed = GRULayer(3, 4, dropout=0.0), nn.GRU(3, 4, batch_first=True, bidirectional=True)
    for name, value in layer.named_parameters():
        direction, name = name.split(".")
        getattr(packed, name + ("_reverse" if direction == "backwards" else "")).data = value.data
    lengths = torch.tensor([2, 7, 1, 5])
    states, mask = torch.randn(4, 7, 3), (torch.arange(7) < lengths[:, None]).long()
    expected, _ = packed(pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False))
    found = layer(states, mask)
    torch.testing.assert_close(found, pad_packed_sequence(expected, batch_first=True)[0], atol=1e-6, rtol=0)


def test_texts_are_reversed_within_their_length() -> None:
    assert reversed_order(torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])).tolist() == [[2, 1, 0, 3], [0, 1, 2, 3]]


def test_every_layer_is_a_stage_and_may_be_entered() -> None:
    backbone = tiny()
    network = Network(backbone, linear(backbone.num_features, 2, 0.0)).eval()
    assert list(network.stages) == ["embeddings", "layer0", "layer1", "head"]
    inputs = batch_of(backbone, TEXTS)
    with torch.no_grad():
        for start in (1, 2):
            halves = cut(network, backbone.input_spec, start)
            assert halves is not None
            network.entries[start] = halves.suffix
            assert torch.equal(network(halves.prefix(inputs), start=start), network(inputs))


def test_gradients_reach_every_parameter() -> None:
    backbone = tiny()
    Network(backbone, nn.Identity()).features(batch_of(backbone, TEXTS)).square().sum().backward()
    for name, parameter in backbone.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    table = backbone.network.embeddings
    assert not table.weight[0].any()  # padding
    assert not table.weight.grad[0].any()


@pytest.mark.parametrize("units", ["words", "pieces"])
def test_what_a_run_records_builds_it_again(units: str) -> None:
    backbone = tiny(units=units)
    again = gru(
        **{**CHOICES, "units": units, "embedding_size": None}, settings=backbone.settings, input_spec=spec_of(backbone)
    )
    again.network.load_state_dict(backbone.network.state_dict())
    inputs = batch_of(backbone, TEXTS)
    assert torch.equal(features(again, inputs), features(backbone, inputs))
    assert (again.settings, again.input_spec) == (backbone.settings, backbone.input_spec)


def test_choices_that_the_vocabulary_of_a_run_overrules_are_named(caplog: pytest.LogCaptureFixture) -> None:
    backbone = tiny()
    gru(**{**CHOICES, "units": "pieces"}, settings=backbone.settings, input_spec=spec_of(backbone))
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "backbone.units=pieces is ignored: the vocabulary of the run has words"
    ]


@pytest.mark.parametrize("units", ["words", "pieces"])
def test_without_texts_it_still_has_its_stages(units: str) -> None:
    backbone = tiny(texts=[], units=units)
    assert list(backbone.stages) == ["embeddings", "layer0", "layer1"]
    assert features(backbone, batch_of(backbone, ["anything"])).isfinite().all()


def test_word_vectors_land_in_the_rows_of_their_words(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2 3\nCat 4 5 6\nzebra 7 8 9\n영화 -1 -2 -3\n", encoding="utf-8")
    backbone = tiny(weights=str(file), embedding_size=None)
    table, rows = backbone.network.embeddings.weight.detach(), token_ids(spec_of(backbone).tokenizer)
    found = {word: table[rows[word]].tolist() for word in ("the", "cat", "zebra", "영화")}
    assert found == {"the": [1, 2, 3], "cat": [4, 5, 6], "zebra": [7, 8, 9], "영화": [-1, -2, -3]}
    for word in ("dog", "재미있는"):  # not in the file
        assert table[rows[word]].any()
        assert table[rows[word]].tolist() not in list(found.values())
    assert not table[:2].any()  # padding and the unknown word
    assert backbone.settings == {"units": "words", "vocabulary_size": 50, "embedding_size": 3}


def test_the_vocabulary_fills_up_with_the_words_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "vectors.vec"
    file.write_text("4 1\nthe 1\nzebra 2\ncat 3\nlion 4\n")
    backbone = tiny(["cat cat dog"], weights=file, vocabulary_size=5, embedding_size=None)
    assert list(token_ids(spec_of(backbone).tokenizer)) == ["[PAD]", "[UNK]", "cat", "dog", "the"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pooling": "max"}, "backbone.pooling is cls, mean, last, not 'max'"),
        ({"weights": "{file}", "units": "pieces"}, "vectors of whole words: type backbone.units=words"),
        ({"weights": "{file}"}, "backbone.embedding_size=6, but .* has vectors of 2 numbers: leave it at null"),
        ({"weights": "runs/1"}, "none or a file of word vectors as text .* type init_from="),
    ],
)
def test_choices_that_cannot_be(tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2\n")
    given = {key: str(file) if value == "{file}" else value for key, value in choices.items()}
    with pytest.raises(UserError, match=message):
        tiny(**given)


class InferenceModel(nn.Module):
    """As exports have it: two tensors instead of a mapping."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.network = Network(backbone, nn.Identity())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.network({"input_ids": input_ids, "attention_mask": attention_mask})


def exports(backbone: Backbone) -> tuple[InferenceModel, tuple[Tensor, ...], dict[str, Any]]:
    """Network, example and dynamic shapes."""
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    shapes = {name: {0: batch, 1: length} for name in ("input_ids", "attention_mask")}
    return InferenceModel(backbone).eval(), tuple(batch_of(backbone, TEXTS[:2]).values()), shapes


def random_inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
    lengths = torch.randint(1, length + 1, (batch, 1))
    mask = (torch.arange(length) < lengths).long()
    return torch.randint(2, 12, (batch, length)) * mask, mask


SHAPES = [(1, 1), (2, 8), (3, 1), (1, 40), (7, 13)]


@pytest.mark.run
@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of their own code
def test_an_exported_program_takes_batches_of_any_size_and_length() -> None:
    deployed, example, shapes = exports(tiny())
    program = torch.export.export(deployed, example, dynamic_shapes=shapes).module()
    for shape in SHAPES:
        inputs = random_inputs(*shape)
        torch.testing.assert_close(program(*inputs), deployed(*inputs), atol=1e-6, rtol=0)


@pytest.mark.run
@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of their own code
@pytest.mark.parametrize("pooling", [pytest.param("mean", marks=pytest.mark.run), "last"])
def test_so_does_onnx(tmp_path: Path, pooling: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    deployed, example, shapes = exports(tiny(pooling=pooling))
    program = torch.onnx.export(deployed, example, dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in SHAPES:
        inputs = random_inputs(*shape)
        names = [given.name for given in session.get_inputs()]
        (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
        assert np.abs(found - deployed(*inputs).detach().numpy()).max() < 1e-5
