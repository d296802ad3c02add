"""Texts, or pairs of them, as token ids: tokenised once, kept in one array, padded batch by batch.

N: number of texts or pairs, B: batch size, T: tokens of the longest of a batch, rounded up.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thaw.data.pairs import Text
from thaw.errors import UserError
from thaw.types import TokenSpec


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, or of N pairs of texts."""

    ids: NDArray[np.int32]
    """Token ids of all texts, one text (or pair) after the other."""
    types: NDArray[np.int8] | None
    """Which text of a pair each of `ids` belongs to, as the tokenizer says; None if the network does not take it."""
    starts: NDArray[np.int64]
    """Where the texts begin, (N + 1,): text n is `ids[starts[n] : starts[n + 1]]`, at least one token."""
    cut: NDArray[np.bool_]
    """Whether each text was longer than the maximum and lost its end, (N,)."""
    empty: NDArray[np.bool_]
    """Whether each text, or one of each pair, has no tokens but those that the tokenizer adds, (N,). A text without any
    is one pad token."""
    unknown: float
    """Share of all tokens that stand for something unknown to the tokenizer, 0..1."""
    spec: TokenSpec
    """Tokenizer and maximum length."""
    pad_multiple_tokens: int
    """Batches are padded to a multiple of this length, but not beyond the maximum."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each text, (N,)."""
        return np.diff(self.starts)

    def width(self, lengths: NDArray[np.int64]) -> int:
        """Return T for a batch of texts of these lengths."""
        multiple = self.pad_multiple_tokens
        return int(min(-(-lengths.max() // multiple) * multiple, self.spec.max_length_tokens))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of the network for these texts, each int64 of (B, T), padded on the right.

        They are `input_ids`, `attention_mask` (1: token, 0: padding) and, where it takes them, `token_type_ids`.
        """
        lengths = np.array([self.starts[i + 1] - self.starts[i] for i in indices])
        mask = np.arange(self.width(lengths)) < lengths[:, None]
        columns = [self._padded(self.ids, self.spec.pad_id, indices, mask), mask.astype(np.int64)]
        if self.types is not None:
            columns.append(self._padded(self.types, 0, indices, mask))
        return dict(zip(self.spec.inputs, map(torch.from_numpy, columns), strict=True))

    def _padded(
        self, values: NDArray[Any], padding: int, indices: Sequence[int], mask: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        padded = np.full(mask.shape, padding, dtype=np.int64)
        padded[mask] = np.concatenate([values[self.starts[i] : self.starts[i + 1]] for i in indices])
        return padded


def tokenise(texts: Sequence[Text], spec: TokenSpec, pad_multiple_tokens: int = 8) -> Tokens:
    """Tokenise texts or pairs on all cores; those longer than `spec.max_length_tokens` lose their end.

    Of a pair, the longer text is cut until both have the same length.

    Raises:
        UserError: the tokenizer numbers the texts of a pair in another way than the network does.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # if it is not set, every loader process warns
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    tokenizer = Tokenizer.from_str(spec.tokenizer)
    tokenizer.enable_truncation(spec.max_length_tokens)
    encodings = tokenizer.encode_batch(list(texts))
    ids_of_texts = [np.array(encoding.ids or [spec.pad_id], dtype=np.int32) for encoding in encodings]
    ids = np.concatenate(ids_of_texts)
    types = None
    if spec.pairs and spec.token_types:
        types = np.concatenate([np.array(encoding.type_ids or [0], dtype=np.int8) for encoding in encodings])
        if types.max() >= spec.token_types:
            raise UserError(
                f"the tokenizer marks tokens of a pair with numbers up to {types.max()}, and the network knows "
                f"{spec.token_types}: they do not belong together. Name another network"
            )
    unknown_id = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    return Tokens(
        ids,
        types,
        starts=np.concatenate([[0], np.cumsum([len(ids) for ids in ids_of_texts])]),
        cut=np.array([bool(encoding.overflowing) for encoding in encodings]),
        empty=np.array([_is_empty(encoding, spec) for encoding in encodings]),
        unknown=0.0 if unknown_id is None else float((ids == unknown_id).mean()),
        spec=spec,
        pad_multiple_tokens=pad_multiple_tokens,
    )


def _is_empty(encoding: Any, spec: TokenSpec) -> bool:
    return bool({0, 1} - {*encoding.sequence_ids}) if spec.pairs else all(encoding.special_tokens_mask)


def min_length(spec: TokenSpec) -> int:
    """Return the length of a text of one token, or of a pair of such, with the tokens that the tokenizer adds."""
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    texts = ("", "") if spec.pairs else ("",)
    return len(Tokenizer.from_str(spec.tokenizer).encode(*texts).ids) + len(texts)


def tells_apart(spec: TokenSpec) -> bool:
    """Whether a network sees where the second text of a pair begins: by a token between them, or by their types."""
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    encoding = Tokenizer.from_str(spec.tokenizer).encode("a", "a")
    return (0, None) in pairwise(encoding.sequence_ids) or (spec.token_types > 0 and len({*encoding.type_ids}) > 1)
