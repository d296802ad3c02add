"""Texts as token ids: tokenised once, kept in one array, padded batch by batch.

N: number of texts, B: batch size, T: tokens of the longest text of a batch, rounded up.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thaw.types import TokenSpec


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts."""

    ids: NDArray[np.int32]
    """Token ids of all texts, one text after the other."""
    starts: NDArray[np.int64]
    """Where the texts begin, (N + 1,): text n is `ids[starts[n] : starts[n + 1]]`, at least one token."""
    cut: NDArray[np.bool_]
    """Whether each text was longer than the maximum and lost its end, (N,)."""
    empty: NDArray[np.bool_]
    """Whether each text has no tokens but those that the tokenizer adds, (N,). A text without any is one pad token."""
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
        """Return `input_ids` and `attention_mask` (1: token, 0: padding) of these texts, both int64 of (B, T)."""
        lengths = np.array([self.starts[i + 1] - self.starts[i] for i in indices])
        mask = np.arange(self.width(lengths)) < lengths[:, None]
        ids = np.full(mask.shape, self.spec.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.starts[i] : self.starts[i + 1]] for i in indices])
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenise(texts: Sequence[str], spec: TokenSpec, pad_multiple_tokens: int = 8) -> Tokens:
    """Tokenise texts on all cores; those longer than `spec.max_length_tokens` lose their end."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # if it is not set, every loader process warns
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    tokenizer = Tokenizer.from_str(spec.tokenizer)
    tokenizer.enable_truncation(spec.max_length_tokens)
    encodings = tokenizer.encode_batch(list(texts))
    ids_of_texts = [np.array(encoding.ids or [spec.pad_id], dtype=np.int32) for encoding in encodings]
    ids = np.concatenate(ids_of_texts)
    unknown_id = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    return Tokens(
        ids,
        starts=np.concatenate([[0], np.cumsum([len(ids) for ids in ids_of_texts])]),
        cut=np.array([bool(encoding.overflowing) for encoding in encodings]),
        empty=np.array([all(encoding.special_tokens_mask) for encoding in encodings]),
        unknown=0.0 if unknown_id is None else float((ids == unknown_id).mean()),
        spec=spec,
        pad_multiple_tokens=pad_multiple_tokens,
    )


def min_length(spec: TokenSpec) -> int:
    """Return the length of a text of one token, with the tokens that the tokenizer adds."""
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    return len(Tokenizer.from_str(spec.tokenizer).encode("").ids) + 1
