"""Texts as token ids: cut up once, kept in one array, padded a batch at a time."""

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
    """N texts."""

    ids: NDArray[np.int32]
    """Of all texts, one after the other."""
    starts: NDArray[np.int64]
    """(N + 1,): text n is ids[starts[n] : starts[n + 1]], at least one token."""
    cut: NDArray[np.bool_]
    """(N,): whether it was longer than it may be."""
    empty: NDArray[np.bool_]
    """(N,): whether nothing in it is a token, but what the tokenizer adds; without that it is one that only pads."""
    unknown: float
    """Part of all tokens that the tokenizer does not know."""
    spec: TokenSpec
    pad_multiple_tokens: int
    """Batches are padded to a multiple of it."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens."""
        return np.diff(self.starts)

    def width(self, lengths: NDArray[np.int64]) -> int:
        """T of a batch of texts of these lengths."""
        multiple = self.pad_multiple_tokens
        return int(min(-(-lengths.max() // multiple) * multiple, self.spec.max_length_tokens))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (1: token, 0: padding), both (B, T), int64, for these texts."""
        lengths = np.array([self.starts[i + 1] - self.starts[i] for i in indices])
        mask = np.arange(self.width(lengths)) < lengths[:, None]
        ids = np.full(mask.shape, self.spec.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.starts[i] : self.starts[i + 1]] for i in indices])
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def tokenise(texts: Sequence[str], spec: TokenSpec, pad_multiple_tokens: int = 8) -> Tokens:
    """On all cores."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # where nothing is said, every loader process warns
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(spec.tokenizer)
    tokenizer.enable_truncation(spec.max_length_tokens)
    encoded = tokenizer.encode_batch(list(texts))
    found = [np.array(one.ids or [spec.pad_id], dtype=np.int32) for one in encoded]
    empty = np.array([all(one.special_tokens_mask) for one in encoded])
    cut = np.array([bool(one.overflowing) for one in encoded])
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in found])])
    ids = np.concatenate(found)
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    part = 0.0 if unknown is None else float((ids == unknown).mean())
    return Tokens(ids, starts, cut, empty, part, spec, pad_multiple_tokens)


def shortest(spec: TokenSpec) -> int:
    """Tokens of a text of one: what the tokenizer adds, and that."""
    from tokenizers import Tokenizer

    return len(Tokenizer.from_str(spec.tokenizer).encode("").ids) + 1
