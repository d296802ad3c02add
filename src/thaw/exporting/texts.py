"""Texts as input of exported networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import Dim

from thaw.data.tokens import tokenise
from thaw.exporting.inputs import InputKind
from thaw.types import TokenSpec


class Texts(InputKind):
    """Texts; the model takes their token ids and mask, both int64 (B, T)."""

    things = "texts"
    user_inputs = network_inputs = "token ids and mask, int64 (B, T), as tokenizer.json makes them"
    example_sample = '"a text"'

    def __init__(self, spec: TokenSpec):
        self.spec = spec
        self.text_files = {"tokenizer.json": spec.tokenizer, "tokenizer_config.json": _tokenizer_config(spec)}
        self.preprocessing = {
            "1_tokenizer": "tokenizer.json",
            "2_max_length_tokens": spec.max_length_tokens,
            "2_cut": "right",
            "3_pad_id": spec.pad_id,
            "3_pad": "right",
        }

    def example(self) -> dict[str, Tensor]:
        """A long and a short text."""
        return tokenise(["a b c d e f g h i j k l", "a b c"], self.spec).batch([0, 1])

    def varying_dimensions(self) -> dict[int, Dim]:
        """The batch size, and the number of tokens up to the most that the network takes."""
        return {0: Dim("batch", min=1), 1: Dim("length", min=1, max=self.spec.max_length_tokens)}

    def to_network(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Token ids and mask, both (B, T), under the names that the network takes."""
        return dict(zip(("input_ids", "attention_mask"), inputs, strict=True))

    def read(self, samples: Sequence[str]) -> tuple[Tensor, ...]:
        """Tokenise texts as in training."""
        batch = tokenise(samples, self.spec).batch(range(len(samples)))
        return batch["input_ids"], batch["attention_mask"]

    def sample(self, data: Any, index: int, variation: int, stem: Path) -> str:
        """Give the text as it is, cut off, four times over, or with several lines and scripts."""
        text: str = data.texts[index].replace("\0", " ")
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
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": spec.max_length_tokens}
    return json.dumps({**settings, **({"pad_token": pad[0]} if pad else {})}, indent=2)
