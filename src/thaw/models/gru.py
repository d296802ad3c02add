"""A small recurrent network for texts, trained from scratch or on word vectors (`pip install -e ".[text]"`).

B texts, T tokens of the longest, D wide. Texts are padded on the right.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.gru_network import GRUNetwork, randomise
from thaw.models.pooling import Pool
from thaw.models.vocabulary import PAD_ID, TextCutter, token_ids
from thaw.models.weights import weights_choice
from thaw.models.word_vectors import Vector, read_word_vectors
from thaw.types import TokenSpec

log = logging.getLogger(__name__)

UNITS = ("words", "pieces")
EMBEDDING_SIZE = 128
"""Default width of word vectors."""
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
    pairs: bool = False,
    settings: Mapping[str, Any] | None = None,
    input_spec: TokenSpec | None = None,
) -> Backbone:
    """A bidirectional GRU: `input_ids` and `attention_mask`, both (B, T) -> pooled features (B, 2 * hidden_size).

    Args:
        weights: None or "none" (random), or a file of word vectors (see `read_word_vectors`).
        units: what the vocabulary consists of, "words" or "pieces" of words.
        vocabulary_size: largest number of entries, with padding and the unknown word.
        embedding_size: width of the word vectors; None for that of the file, or 128.
        hidden_size: width of each layer in each direction.
        num_layers: number of bidirectional layers.
        dropout: probability of dropout, after the embeddings and after each layer.
        pooling: how states become features, see `Pool`.
        texts: training texts that the vocabulary is learnt from.
        pairs: whether the samples are pairs of texts, which are read one after the other with a separator between them.
        settings: settings that a run recorded; then the vocabulary is that run's and `texts` are not used.
        input_spec: tokenizer that a run recorded.

    Raises:
        UserError: the file of word vectors is bad, or there is none.
    """
    requested = {"units": units, "vocabulary_size": vocabulary_size, "embedding_size": embedding_size}
    vectors: dict[str, Vector] = {}
    if settings is None:
        choice = weights_choice(weights)
        if choice == "default":
            raise UserError(f"backbone.weights={weights}: a GRU has none of its own: type none, or a file of vectors")
        file = None if choice is None else Path(choice)
        tokenizer, vectors = _learn_vocabulary(texts, TextCutter(pairs), units, vocabulary_size, file)
        input_spec = TokenSpec(tokenizer, PAD_ID, MAX_LENGTH_TOKENS)
        settings = {**requested, "embedding_size": _width(embedding_size, vectors, file)}
    else:
        _warn_of_ignored(requested, settings)
    assert input_spec is not None
    rows, width = token_ids(input_spec.tokenizer), settings["embedding_size"]
    sizes = {"num_tokens": len(rows), "embedding_size": width, "hidden_size": hidden_size, "num_layers": num_layers}
    network = GRUNetwork(**sizes, dropout=dropout)
    if vectors:
        _fill(network.embeddings, rows, vectors)
    return Backbone(
        network,
        network.stages(),
        2 * hidden_size,
        input_spec,
        Pool(pooling),
        recipe=_recipe(sizes, pooling),
        settings=settings,
        kind="scratch",  # at most its first stage is pretrained
    )


def _learn_vocabulary(
    texts: Sequence[str], cutter: TextCutter, units: str, size: int, file: Path | None
) -> tuple[str, dict[str, Vector]]:
    """Return a tokenizer.json learnt from `texts`, and the vectors in `file` of its words; none without a file."""
    if file is None:
        if units == "pieces":
            return cutter.piece_tokenizer(texts, size), {}
        return cutter.word_tokenizer(cutter.words(texts), size), {}
    if units != "words":
        raise UserError(f"backbone.weights={file} has vectors of whole words: type backbone.units=words")
    room = size - len(cutter.special)
    words = cutter.words(texts)[:room]
    vectors = read_word_vectors(file, words, room, cutter.as_word)
    log.info(
        "%s: vectors for %d of the %d words of the training texts, and for %d others",
        *(file, len(vectors.keys() & set(words)), len(words), len(vectors.keys() - set(words))),
    )
    return cutter.word_tokenizer([*words, *vectors], size), vectors


def _width(requested: int | None, vectors: Mapping[str, Vector], file: Path | None) -> int:
    if not vectors:
        return requested or EMBEDDING_SIZE
    width = len(next(iter(vectors.values())))
    if requested not in (None, width):
        raise UserError(
            f"backbone.embedding_size={requested}, but {file} has vectors of {width} numbers: leave it at null"
        )
    return width


def _warn_of_ignored(requested: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    for key, value in requested.items():
        if value not in (None, recorded[key]):
            log.warning("backbone.%s=%s is ignored: the vocabulary of the run has %s", key, value, recorded[key])


def _fill(table: nn.Embedding, rows: Mapping[str, int], vectors: Mapping[str, Vector]) -> None:
    """Copy `vectors` into their rows; other rows are random, with the same standard deviation."""
    known = np.stack(list(vectors.values()))
    randomise(table, float(known.std()))
    with torch.no_grad():
        table.weight[[rows[word] for word in vectors]] = torch.from_numpy(known)


def _recipe(sizes: Mapping[str, Any], pooling: str) -> RebuildRecipe:
    keywords = ", ".join(f"{key}={value!r}" for key, value in sizes.items())
    return RebuildRecipe(
        imports=["thaw.models.backbone", "thaw.models.gru_network", "thaw.models.network", "thaw.models.pooling"],
        build=[
            f"gru = thaw.models.gru_network.GRUNetwork({keywords}, dropout=0.0)",
            f"pool = thaw.models.pooling.Pool({pooling!r})",
            f"backbone = thaw.models.backbone.Backbone(gru, gru.stages(), {2 * sizes['hidden_size']}, None, pool)",
            "network = thaw.models.network.Network(backbone, {head})",
        ],
        head=None,
    )
