"""A small recurrent network for texts, trained from scratch or on word vectors (`pip install -e ".[text]"`).

B texts, T tokens of the longest, D wide. Texts are padded on the right.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.pooling import Pool
from thaw.models.stages import Stages
from thaw.models.vocabulary import PAD_ID, SPECIAL, TextCutter, numbers
from thaw.models.word_vectors import Vector, read_word_vectors
from thaw.types import TokenSpec

log = logging.getLogger(__name__)

UNITS = ("words", "pieces")
EMBEDDING_SIZE = 128
"""Default width of word vectors."""
EMBEDDING_STD = 0.1
"""Standard deviation of new vectors. Torch's default of 1 cost 2 points of validation accuracy on TREC."""
MAX_LENGTH_TOKENS = 2**30
"""The network itself has no limit."""


def gru(
    weights: str | Path | None,
    units: str,
    vocabulary_size: int,
    embedding_size: int | None,
    hidden_size: int,
    num_layers: int,
    dropout: float,
    pooling: str,
    texts: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    input_spec: TokenSpec | None = None,
) -> Backbone:
    """A bidirectional GRU: `input_ids` and `attention_mask`, both (B, T) -> pooled features (B, 2 * hidden_size).

    Args:
        weights: None or "none" (random), or a file of word vectors (see `read_word_vectors`).
        units: what the vocabulary consists of, "words" or "pieces" of words.
        vocabulary_size: largest number of entries, with padding and the unknown word.
        embedding_size: width of the word vectors; None for that of the file, or 128.
        hidden_size: of each layer in each direction.
        num_layers: how many bidirectional layers.
        dropout: probability, after the embeddings and after each layer.
        pooling: how states become features, see `Pool`.
        texts: training texts that the vocabulary is learnt from.
        settings: as a run recorded them; then the vocabulary is that run's and `texts` are not used.
        input_spec: tokenizer as a run recorded it.

    Raises:
        UserError: a choice is out of range, or the file of word vectors is bad.
    """
    _require(units, vocabulary_size, embedding_size, hidden_size, num_layers, dropout)
    cutter = TextCutter()
    asked = {"units": units, "vocabulary_size": vocabulary_size, "embedding_size": embedding_size}
    vectors: dict[str, Vector] = {}
    if settings is None:
        file = None if weights in (None, "none") else Path(str(weights))
        tokenizer, vectors = _learnt(cutter, texts, units, vocabulary_size, file)
        input_spec = TokenSpec(tokenizer, PAD_ID, MAX_LENGTH_TOKENS)
        settings = {**asked, "embedding_size": _width(embedding_size, vectors, file)}
    else:
        _warn_of_ignored(asked, settings)
    assert input_spec is not None
    rows = numbers(input_spec.tokenizer)
    sizes = {
        "num_tokens": len(rows),
        "embedding_size": settings["embedding_size"],
        "hidden_size": hidden_size,
        "num_layers": num_layers,
    }
    network = GRUNetwork(**sizes, dropout=dropout)
    if vectors:
        _fill(network.embeddings, rows, vectors)
    return Backbone(
        network, network.stages(), 2 * hidden_size, input_spec, Pool(pooling), _recipe(sizes, pooling), settings
    )


class GRUOutput(NamedTuple):
    """Result of `GRUNetwork`, named as in Hugging Face's networks."""

    last_hidden_state: Tensor
    """(B, T, 2 * hidden_size), zeros at padding."""


class GRUConfig(NamedTuple):
    """Facts of a `GRUNetwork`, named as in Hugging Face's configurations."""

    vocab_size: int
    pad_token_id: int = PAD_ID


class GRUNetwork(nn.Module):
    """Word vectors and bidirectional GRU layers, with random weights."""

    def __init__(self, num_tokens: int, embedding_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        self.config = GRUConfig(num_tokens)
        self.embeddings = nn.Embedding(num_tokens, embedding_size, padding_idx=PAD_ID)
        self.dropout = nn.Dropout(dropout)
        widths = [embedding_size, *[2 * hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(GRULayer(width, hidden_size, dropout) for width in widths)
        _randomise(self.embeddings, EMBEDDING_STD)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> GRUOutput:
        """Hidden states of `input_ids` and `attention_mask`, both (B, T)."""
        states = self.dropout(self.embeddings(input_ids))
        for layer in self.layers:
            states = layer(states, attention_mask)
        return GRUOutput(states)

    def stages(self) -> Stages:
        """`embeddings`, `layer0` ..."""
        layers = {f"layers.{number}": f"layer{number}" for number in range(len(self.layers))}
        stages: dict[str, list[str]] = {name: [] for name in ("embeddings", *layers.values())}
        for name, _ in self.named_parameters():
            stages[layers.get(".".join(name.split(".")[:2]), "embeddings")].append(name)
        return stages


class GRULayer(nn.Module):
    """Gated recurrent units (Cho et al. 2014) in both directions: (B, T, D) -> (B, T, 2 * width), zeros at padding.

    Nothing is packed: for the backward direction each text is reversed within its own length, so that padding comes
    last in both directions. That can be exported for any T, and is 3 times faster on a CPU at T = 256.
    """

    def __init__(self, inputs: int, width: int, dropout: float):
        super().__init__()
        self.forwards = nn.GRU(inputs, width, batch_first=True)
        self.backwards = nn.GRU(inputs, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States of the next layer; `mask` (B, T) is 1 for tokens."""
        order = reversed_order(mask)
        with _any_length():
            forwards, _ = self.forwards(states)
            backwards, _ = self.backwards(_ordered(states, order))
        both = torch.cat([forwards, _ordered(backwards, order)], dim=2)
        return self.dropout(both * mask.unsqueeze(2))


def reversed_order(mask: Tensor) -> Tensor:
    """Positions (B, T) that reverse each text within its length; padding stays where it is."""
    lengths, places = mask.sum(dim=1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    return torch.where(places < lengths, lengths - 1 - places, places)


def _ordered(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order.unsqueeze(2).expand(-1, -1, states.shape[2]))


@contextmanager
def _any_length() -> Iterator[None]:
    """Make torch.export keep nn.GRU as a loop; otherwise it unrolls as many steps as the example has tokens."""
    if not torch.compiler.is_exporting():
        yield
        return
    from torch.export._patches import register_gru_while_loop_decomposition

    with register_gru_while_loop_decomposition():
        yield


def _require(
    units: str, vocabulary_size: int, embedding_size: int | None, hidden_size: int, num_layers: int, dropout: float
) -> None:
    faults = []
    if units not in UNITS:
        faults.append(f"units is {' or '.join(UNITS)}, not '{units}'")
    if vocabulary_size <= len(SPECIAL):
        faults.append(f"vocabulary_size is above {len(SPECIAL)} ({', '.join(SPECIAL)}), not {vocabulary_size}")
    sizes = {"embedding_size": embedding_size, "hidden_size": hidden_size, "num_layers": num_layers}
    faults += [f"{key} is at least 1, not {size}" for key, size in sizes.items() if size is not None and size < 1]
    if not 0 <= dropout < 1:
        faults.append(f"dropout is at least 0 and below 1, not {dropout}")
    if faults:
        raise UserError("; ".join(f"backbone.{fault}" for fault in faults))


def _learnt(
    cutter: TextCutter, texts: Sequence[str], units: str, size: int, file: Path | None
) -> tuple[str, dict[str, Vector]]:
    """A tokenizer.json, and the vectors in `file` of the words that it knows."""
    if file is None:
        if units == "pieces":
            return cutter.piece_tokenizer(texts, size), {}
        return cutter.word_tokenizer(cutter.words(texts), size), {}
    if units != "words":
        raise UserError(f"backbone.weights={file} has vectors of whole words: type backbone.units=words")
    words = cutter.words(texts)[: size - len(SPECIAL)]
    vectors = read_word_vectors(file, words, size - len(SPECIAL), cutter.as_word)
    log.info(
        "%s: vectors for %d of the %d words of the training texts, and for %d others",
        *(file, len(vectors.keys() & set(words)), len(words), len(vectors.keys() - set(words))),
    )
    return cutter.word_tokenizer([*words, *vectors], size), vectors


def _width(asked: int | None, vectors: Mapping[str, Vector], file: Path | None) -> int:
    if not vectors:
        return asked or EMBEDDING_SIZE
    width = len(next(iter(vectors.values())))
    if asked not in (None, width):
        raise UserError(f"backbone.embedding_size={asked}, but {file} has vectors of {width} numbers: leave it at null")
    return width


def _warn_of_ignored(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    for key, value in asked.items():
        if value not in (None, recorded[key]):
            log.warning("backbone.%s=%s is ignored: the vocabulary of the run has %s", key, value, recorded[key])


def _randomise(table: nn.Embedding, std: float) -> None:
    nn.init.normal_(table.weight, std=std)
    with torch.no_grad():
        table.weight[: len(SPECIAL)] = 0  # also of unknown words, which carry no meaning


def _fill(table: nn.Embedding, rows: Mapping[str, int], vectors: Mapping[str, Vector]) -> None:
    """Copy `vectors` into their rows; other rows are random, with the same standard deviation."""
    known = np.stack(list(vectors.values()))
    _randomise(table, float(known.std()))
    with torch.no_grad():
        table.weight[[rows[word] for word in vectors]] = torch.from_numpy(known)


def _recipe(sizes: Mapping[str, Any], pooling: str) -> RebuildRecipe:
    keywords = ", ".join(f"{key}={value!r}" for key, value in sizes.items())
    return RebuildRecipe(
        imports=["thaw.models.backbone", "thaw.models.gru", "thaw.models.network", "thaw.models.pooling"],
        build=[
            f"gru = thaw.models.gru.GRUNetwork({keywords}, dropout=0.0)",
            f"pool = thaw.models.pooling.Pool({pooling!r})",
            f"backbone = thaw.models.backbone.Backbone(gru, gru.stages(), {2 * sizes['hidden_size']}, None, pool)",
            f"head = thaw.models.network.new_head({2 * sizes['hidden_size']}, {{num_classes}}, dropout=0.0)",
            "network = thaw.models.network.Network(backbone, head)",
        ],
        head=None,
    )
