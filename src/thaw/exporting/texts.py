"""Texts, and pairs of texts, as input of exported networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import Dim

from thaw.data.pairs import Text, parts_of, text_of
from thaw.data.tokens import tokenise
from thaw.exporting.inputs import InputKind
from thaw.types import TokenSpec


class Texts(InputKind):
    """Texts or pairs of them; the model takes `TokenSpec.inputs`: token ids, mask ..., each int64 (B, T)."""

    def __init__(self, spec: TokenSpec):
        self.spec = spec
        self.things = "pairs of texts" if spec.pairs else "texts"
        self.example_sample = "$'a text\\ta second text'" if spec.pairs else '"a text"'  # in bash, with a tab between
        names = {"input_ids": "token ids", "attention_mask": "mask", "token_type_ids": "token types"}
        *first, last = (names[name] for name in spec.inputs)
        described = f"{', '.join(first)} and {last}, int64 (B, T), as tokenizer.json makes them"
        self.user_inputs = self.network_inputs = described + (" of a pair" if spec.pairs else "")
        self.text_files = {"tokenizer.json": spec.tokenizer, "tokenizer_config.json": _tokenizer_config(spec)}
        self.preprocessing = {
            "1_tokenizer": "tokenizer.json",
            **({"1_pairs": True} if spec.pairs else {}),
            "2_max_length_tokens": spec.max_length_tokens,
            "2_cut": "right, the longer text of a pair first" if spec.pairs else "right",
            "3_pad_id": spec.pad_id,
            **({"3_token_types": True} if "token_type_ids" in spec.inputs else {}),
            "3_pad": "right",
        }

    def example(self) -> dict[str, Tensor]:
        """A long and a short text, or pairs of them."""
        texts = ["a b c d e f g h i j k l", "a b c"]
        return tokenise([(text, "a b") for text in texts] if self.spec.pairs else texts, self.spec).batch([0, 1])

    def varying_dimensions(self) -> dict[int, Dim]:
        """The batch size, and the number of tokens up to the most that the network takes."""
        return {0: Dim("batch", min=1), 1: Dim("length", min=1, max=self.spec.max_length_tokens)}

    def to_network(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Token ids, mask ..., each (B, T), under the names that the network takes."""
        return dict(zip(self.spec.inputs, inputs, strict=True))

    def read(self, samples: Sequence[Text]) -> tuple[Tensor, ...]:
        """Tokenise texts as in training."""
        return tuple(tokenise(samples, self.spec).batch(range(len(samples))).values())

    def sample(self, data: Any, index: int, variation: int, stem: Path) -> Text:
        """Give the texts as they are, cut off, four times over, or with several lines and scripts."""
        return text_of([self._varied(text, variation) for text in parts_of(data.texts[index])])

    @staticmethod
    def _varied(text: str, variation: int) -> str:
        text = text.replace("\0", " ")
        if variation == 1:
            return text[: max(1, len(text) // 3)]
        if variation == 2:
            return " ".join([text] * 4)
        return f"\n{text}\t\u201cÀ 안녕 \U0001f600\u201d " if variation == 3 else text


def _tokenizer_config(spec: TokenSpec) -> str:
    """What makes transformers take tokenizer.json as it is.

    A word that is not special in tokenizer.json is not named as padding: transformers would then cut texts at it.
    """
    added = json.loads(spec.tokenizer)["added_tokens"]
    pad = [token["content"] for token in added if token["special"] and token["id"] == spec.pad_id]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.max_length_tokens,
        "model_input_names": spec.inputs,
    }
    return json.dumps({**settings, **({"pad_token": pad[0]} if pad else {})}, indent=2)
