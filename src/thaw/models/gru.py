"""A recurrent network for texts, small and quick, from nothing or from word vectors (`pip install -e ".[text]"`).

B texts, T tokens of the longest, D wide. Texts are padded on the right.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.pooling import Pool
from thaw.models.vocabulary import PAD_ID, SPECIAL, TextCutter, numbers
from thaw.models.word_vectors import Vector, read_word_vectors
from thaw.types import TokenSpec, TokenStates

log = logging.getLogger(__name__)

UNITS = ("words", "pieces")
EMBEDDING_SIZE = 128
"""Where neither the configuration nor a file of word vectors says."""
EMBEDDING_STD = 0.1
"""Of new vectors: torch's own 1 cost 2 points of validation accuracy on TREC."""
MAX_LENGTH_TOKENS = 2**30
"""Nothing in the network limits it."""


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
    """Token ids and mask, both (B, T), to the features (B, 2 * hidden_size) that `pooling` (see `Pool`) makes.

    `weights`: None or "none" (random), or a file of word vectors (see `read_word_vectors`), whose width is then
    `embedding_size`. `units`: what is learnt of `texts`, "words" or "pieces" of words. `settings` and `input_spec`: as
    a run recorded them; the vocabulary is that run's, and `texts` are not looked at. Raises UserError for choices that
    cannot be and for bad vectors.
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
        "pooling": pooling,
    }
    stages = gru_stages(**sizes, dropout=dropout)
    if vectors:
        _fill(stages["embeddings"].table, rows, vectors)
    return Backbone(stages, 2 * hidden_size, input_spec, _library(sizes), settings)


def gru_stages(
    num_tokens: int, embedding_size: int, hidden_size: int, num_layers: int, pooling: str, dropout: float
) -> dict[str, Any]:
    """`embeddings`, `layer0` ..., `pool`, with random weights."""
    stages: dict[str, Any] = {"embeddings": Embeddings(num_tokens, embedding_size, dropout)}
    for number in range(num_layers):
        stages[f"layer{number}"] = Layer(2 * hidden_size if number else embedding_size, hidden_size, dropout)
    stages["pool"] = Pool(pooling)
    return stages


class Embeddings(nn.Module):
    """Token ids and mask, both (B, T) -> Hidden."""

    def __init__(self, num_tokens: int, width: int, dropout: float):
        super().__init__()
        self.table = nn.Embedding(num_tokens, width, padding_idx=PAD_ID)
        self.dropout = nn.Dropout(dropout)
        _randomise(self.table, EMBEDDING_STD)

    def forward(self, inputs: dict[str, Tensor]) -> TokenStates:
        return TokenStates(self.dropout(self.table(inputs["input_ids"])), inputs["attention_mask"])


class Layer(nn.Module):
    """Gated recurrent units (Cho et al. 2014) in both directions: Hidden -> Hidden, with zeros where padding is.

    What packing is for comes without it: each text is turned round within its own length, so that in both directions
    padding comes last. That can be exported for any T, and is quicker on a CPU (3 times, at T = 256).
    """

    def __init__(self, inputs: int, width: int, dropout: float):
        super().__init__()
        self.forwards = nn.GRU(inputs, width, batch_first=True)
        self.backwards = nn.GRU(inputs, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: TokenStates) -> TokenStates:
        states, mask, _ = TokenStates(*hidden)
        order = turned_round(mask)
        with _any_length():
            forwards, _ = self.forwards(states)
            backwards, _ = self.backwards(_ordered(states, order))
        both = torch.cat([forwards, _ordered(backwards, order)], dim=2)
        return TokenStates(self.dropout(both * mask.unsqueeze(2)), mask)


def turned_round(mask: Tensor) -> Tensor:
    """(B, T): the place from which each place gets its token when texts run backwards. Padding stays where it is."""
    lengths, places = mask.sum(dim=1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    return torch.where(places < lengths, lengths - 1 - places, places)


def _ordered(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order.unsqueeze(2).expand(-1, -1, states.shape[2]))


@contextmanager
def _any_length() -> Iterator[None]:
    """While torch.export traces, which else writes nn.GRU's steps out one by one: as many as the example has tokens."""
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
    """A tokenizer.json, and the vectors in `file` of words that it knows."""
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
        table.weight[: len(SPECIAL)] = 0  # also of unknown words: they say nothing


def _fill(table: nn.Embedding, rows: Mapping[str, int], vectors: Mapping[str, Vector]) -> None:
    """`vectors` into their rows; the rows of other words at random, as large."""
    known = np.stack(list(vectors.values()))
    _randomise(table, float(known.std()))
    with torch.no_grad():
        table.weight[[rows[word] for word in vectors]] = torch.from_numpy(known)


def _library(sizes: Mapping[str, Any]) -> RebuildRecipe:
    given = ", ".join(f"{key}={value!r}" for key, value in sizes.items())
    return RebuildRecipe(
        imports=["thaw.models.gru", "thaw.models.network"],
        build=[
            f"stages = thaw.models.gru.gru_stages({given}, dropout=0.0)",
            f"head = thaw.models.network.new_head({2 * sizes['hidden_size']}, {{num_classes}}, dropout=0.0)",
            "network = thaw.models.network.Network(stages, head)",
        ],
        head=None,
    )
