"""Classify texts with an exported network: `python run_onnx.py model.onnx "a text" ...` prints a JSON line a text.

Without a text it reads a JSON list of them from standard input. Needs onnxruntime, numpy and tokenizers;
tokenizer.json, which was exported with this file, lies beside the network.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

BATCH_SIZE = 16


def main(model: str, *texts: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    metadata = session.get_modelmeta().custom_metadata_map
    class_names, preprocessing = json.loads(metadata["class_names"]), json.loads(metadata["preprocessing"])
    tokenizer = Tokenizer.from_file(str(Path(model).with_name(preprocessing["1_tokenizer"])))
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        found = session.run(None, tokenised(batch, tokenizer, preprocessing))[0]
        for text, probabilities in zip(batch, found, strict=True):
            best = int(probabilities.argmax())
            each = dict(zip(class_names, probabilities.tolist(), strict=True))
            print(json.dumps({"text": text, "label": class_names[best], "probabilities": each}, ensure_ascii=False))


def tokenised(
    texts: Sequence[str], tokenizer: Tokenizer, preprocessing: dict[str, Any]
) -> dict[str, NDArray[np.int64]]:
    """Ids and mask, both (texts, tokens of the longest): cut and padded on the right."""
    tokenizer.enable_truncation(preprocessing["2_max_length_tokens"])
    pad = preprocessing["3_pad_id"]
    found = [one.ids or [pad] for one in tokenizer.encode_batch(list(texts))]
    longest = max(map(len, found))
    return {
        "input_ids": np.array([ids + [pad] * (longest - len(ids)) for ids in found], dtype=np.int64),
        "attention_mask": np.array([[1] * len(ids) + [0] * (longest - len(ids)) for ids in found], dtype=np.int64),
    }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f'usage: python {Path(__file__).name} model.onnx "a text" ...')
    main(sys.argv[1], *(sys.argv[2:] or json.load(sys.stdin)))
