"""Text networks as others use them."""

import json
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import Dim

from thaw.data.tokens import tokenise
from thaw.exporting import run_onnx_texts
from thaw.exporting.deployed import InferenceModel
from thaw.types import TokenSpec


class TextInferenceModel(InferenceModel):
    """Token ids and mask, both (B, T), int64, to class probabilities (B, C)."""

    parameters_take = "token ids and mask, int64 (B, T), as tokenizer.json makes them"
    whole_takes = parameters_take

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.task.probabilities(self.network({"input_ids": input_ids, "attention_mask": attention_mask}))

    @property
    def spec(self) -> TokenSpec:
        assert isinstance(self.backbone.input_spec, TokenSpec)
        return self.backbone.input_spec

    def example(self) -> dict[str, Tensor]:
        return tokenise(["a b c d e f g h i j k l", "a b c"], self.spec).batch([0, 1])

    def dynamic_shapes(self) -> dict[str, Any]:
        batch, length = Dim("batch", min=1), Dim("length", min=1, max=self.spec.max_length_tokens)
        return {"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "1_tokenizer": "tokenizer.json",
            "2_max_length_tokens": self.spec.max_length_tokens,
            "2_cut": "right",
            "3_pad_id": self.spec.pad_id,
            "3_pad": "right",
        }

    def samples(self, data: Any, count: int, folder: Path) -> list[str]:
        """Texts: as they are, cut off, too long, of several lines and scripts."""
        indices = data.splits.test if len(data.splits.test) else data.splits.val
        texts = []
        for number, index in enumerate(islice(cycle(indices.tolist()), count)):
            text = data.texts[index].replace("\0", " ")
            if number % 4 == 1:
                text = text[: max(1, len(text) // 3)]
            elif number % 4 == 2:
                text = " ".join([text] * 4)
            elif number % 4 == 3:
                text = f"\n{text}\t\u201cÀ 안녕 \U0001f600\u201d "
            texts.append(text)
        return texts

    def inputs(self, samples: Sequence[str]) -> tuple[Tensor, ...]:
        batch = tokenise(samples, self.spec).batch(range(len(samples)))
        return batch["input_ids"], batch["attention_mask"]

    def library_inputs(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return dict(zip(self.example(), inputs, strict=True))

    def asked(self, samples: Sequence[str]) -> tuple[list[str], str | None]:
        return [], json.dumps(samples)  # texts may be longer than arguments

    def runner(self) -> dict[str, Path]:
        """Needs only onnxruntime, numpy and tokenizers."""
        return {"run_onnx.py": Path(run_onnx_texts.__file__)}

    def beside(self) -> dict[str, str]:
        return {"tokenizer.json": self.spec.tokenizer}
