"""The data module of texts, or of pairs of them, and the dataset that makes batches of their tokens."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.module import DataModule
from thaw.data.pairs import parts_of
from thaw.data.source import Source
from thaw.data.tokens import Tokens, min_length, tells_apart, tokenise
from thaw.errors import UserError
from thaw.types import Batch, BatchRequest, InputSpec, TokenSpec

MOST_TOKENS = 512
"""Default length at which texts are truncated."""
MANY_UNKNOWN = 0.1
"""Share of unknown tokens that is worth a warning."""


class TextDataModule(DataModule):
    """The texts of a source, which are read once.

    Args:
        source: the texts.
        max_length_tokens: longer texts are truncated; None for the network's own limit, at most MOST_TOKENS.
        pad_multiple_tokens: batches are padded to a multiple of this length.
        **choices: see `DataModule`.

    Raises:
        UserError: the source gives images.
    """

    takes = TokenSpec

    def __init__(
        self,
        source: Source,
        *,
        max_length_tokens: int | None,
        pad_multiple_tokens: int,
        **choices: Any,
    ):
        super().__init__(source, **choices)
        if self.facts.texts is None:
            raise UserError(f"{type(source).__name__} gives images: they belong into an ImageDataModule")
        self.texts, self.max_length_tokens = self.facts.texts, max_length_tokens
        self.pairs = isinstance(self.texts[0], tuple)
        self.pad_multiple_tokens = pad_multiple_tokens
        self.tokens: Tokens | None = None

    def recipe(self, view: int | None) -> dict[str, Any]:
        """Plain values that decide what the network sees of a text."""
        return {**super().recipe(view), "pad_multiple_tokens": self.pad_multiple_tokens}

    def width(self, lengths: NDArray[np.int64]) -> int:
        """Length in tokens that texts of these lengths are padded to in one batch."""
        assert self.tokens is not None, "use_input_spec comes before the loaders"
        return self.tokens.width(lengths)

    @property
    def training_texts(self) -> list[str]:
        """The texts of the training split; of pairs, both."""
        return [text for index in self.train_indices for text in parts_of(self.texts[index])]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (N,)."""
        assert self.tokens is not None, "use_input_spec comes before the loaders"
        return self.tokens.lengths

    def use_input_spec(self, spec: InputSpec) -> None:
        """Tokenise every text, once. Raises UserError if the network takes no texts, only shorter ones, or pairs."""
        super().use_input_spec(spec)
        assert isinstance(spec, TokenSpec)
        if spec.pairs not in (None, self.pairs):
            one, two = "data.text=<column>", "data.text=[premise,hypothesis]"
            raise UserError(
                f"the run was trained on {'pairs of texts' if spec.pairs else 'single texts'}, and these data are "
                f"{'pairs' if self.pairs else 'single texts'}: type {two if spec.pairs else one}"
            )
        spec = replace(spec, pairs=self.pairs)
        most, least = spec.max_length_tokens, min_length(spec)
        if self.max_length_tokens is not None and self.max_length_tokens < least:
            raise UserError(
                f"data.max_length_tokens={self.max_length_tokens} leaves no room for the text: the tokenizer adds "
                f"{least - 1 - self.pairs} tokens to each. Type data.max_length_tokens={least} or more"
            )
        if self.max_length_tokens is not None and self.max_length_tokens > most:
            raise UserError(
                f"data.max_length_tokens={self.max_length_tokens}, but the backbone takes texts of at most {most} "
                f"tokens: type data.max_length_tokens={most}"
            )
        self.input_spec = replace(spec, max_length_tokens=self.max_length_tokens or min(most, MOST_TOKENS))
        self.tokens = tokenise(self.texts, self.input_spec, self.pad_multiple_tokens)

    def warnings(self) -> list[str]:
        """Missing classes, duplicates, and texts that are truncated, empty or mostly unknown."""
        notes = super().warnings()
        if self.tokens is not None:
            things = "pairs" if self.pairs else "texts"
            used = np.concatenate(list(self.parts.values()))
            if cut := self.tokens.cut[used].sum():
                notes.append(
                    f"{cut:,} of {len(used):,} {things} are longer than {self.tokens.spec.max_length_tokens} tokens: "
                    f"the rest of them is not read (data.max_length_tokens)"
                )
            if empty := self.tokens.empty[used].sum():
                notes.append(f"{empty:,} {'pairs hold a text without a' if self.pairs else 'texts contain no'} token")
            if self.pairs and not tells_apart(self.tokens.spec):
                notes.append(
                    "the tokenizer puts nothing between the texts of a pair, so the network cannot tell where the "
                    "second begins: name a network that was made for pairs, such as a BERT"
                )
            if self.tokens.unknown > MANY_UNKNOWN:
                notes.append(
                    f"{self.tokens.unknown:.0%} of all tokens are unknown to the tokenizer: is it for other texts?"
                )
        return notes

    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        """All texts as token ids; see `TextDataset`."""
        assert self.tokens is not None, "use_input_spec comes before the loaders"
        return TextDataset(self.tokens, self.labels.tensor)


class TextDataset(Dataset[Batch]):
    """Batches of the inputs that `Tokens.batch` gives, a pure function of the request."""

    def __init__(self, tokens: Tokens, targets: Tensor):
        self.tokens, self.targets = tokens, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, request: BatchRequest) -> Batch:
        index = torch.tensor(request.indices)
        return Batch(
            self.tokens.batch(request.indices), self.targets[index], index, view=request.view, total=request.total
        )
