"""Classify samples with an exported network: `python run_onnx.py model.onnx sample ...` prints a JSON line for each.

A sample is an image file, a text, or two texts with a tab between them, whatever the network was trained on; `-` stands
for standard input, with a sample on each line, and so does a .txt file of texts. Without samples, a JSON list of them
is read from standard input.
Needs onnxruntime and numpy; for images also Pillow and `image_file.py`, for texts the package tokenizers and
`tokenizer.json`. Both files were exported together with this one.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 16


def main(model: str, *typed: str) -> None:
    """Print label and class probabilities of each sample, or its numbers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    metadata = session.get_modelmeta().custom_metadata_map
    class_names, preprocessing = json.loads(metadata["class_names"]), json.loads(metadata["preprocessing"])
    what = session.get_outputs()[0].name  # probabilities or values
    thresholds = json.loads(metadata.get("thresholds", "null"))
    takes_texts = "1_tokenizer" in preprocessing
    if takes_texts:
        from tokenizers import Tokenizer  # not needed for images

        tokenizer = Tokenizer.from_file(str(Path(model).with_name(preprocessing["1_tokenizer"])))
    samples = read_samples(typed, takes_texts) if typed else json.load(sys.stdin)
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        inputs = token_inputs(tokenizer, batch, preprocessing) if takes_texts else image_inputs(batch, preprocessing)
        for sample, row in zip(batch, session.run(None, inputs)[0].tolist(), strict=True):
            by_name = dict(zip(class_names, row, strict=True))
            decided = decision(by_name, thresholds) if what == "probabilities" else {}
            result = {"text" if takes_texts else "path": sample, **decided, what: by_name}
            print(json.dumps(result, ensure_ascii=False))


def decision(by_name: dict[str, float], thresholds: list[float] | None) -> dict[str, Any]:
    """The class or labels of a sample with these probabilities.

    `thresholds`: probabilities from which labels are set; None where classes exclude each other.
    """
    if thresholds is None:
        return {"label": max(by_name, key=lambda name: by_name[name])}
    return {"labels": [name for name, least in zip(by_name, thresholds, strict=True) if by_name[name] >= least]}


def read_samples(typed: Sequence[str], takes_texts: bool) -> list[str]:
    """Return samples as typed, with `-` and .txt files of texts replaced by their lines.

    Raises:
        ValueError: if the network takes texts, and one is the name of another file, or of a folder.
    """
    samples: list[str] = []
    for sample in typed:
        if sample == "-":
            samples += lines(sys.stdin.buffer.read())
        elif not takes_texts or not os.path.exists(sample):
            samples.append(sample)
        elif os.path.isfile(sample) and sample.lower().endswith(".txt"):
            samples += lines(Path(sample).read_bytes())
        else:
            raise ValueError(f"{sample} is a file or folder, and no text: name a .txt file, or - for standard input")
    return samples


def lines(content: bytes) -> list[str]:
    """Return the lines of UTF-8. Only newlines end them: texts may hold other separators."""
    return [line.rstrip("\r") for line in content.decode("utf-8-sig").removesuffix("\n").split("\n")]


def image_inputs(files: Sequence[str], preprocessing: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Load image files and preprocess them: `images`, uint8 (B, C, H, W)."""
    try:  # not needed for texts
        from image_file import load_image
    except ImportError:  # inside thaw
        from thaw.data.image_file import load_image

    images = (load_image(file, preprocessing["1_max_value"]) for file in files)
    return {"images": np.stack([preprocess(image, preprocessing) for image in images])}


def preprocess(image: Any, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """Pillow image to (C, H, W): resize one side or both, crop the centre. The network scales and normalises."""
    from PIL.Image import Resampling  # not needed for texts

    image = image.convert(preprocessing["2_mode"])
    resize_px, size = preprocessing["3_resize_px"], preprocessing["4_center_crop_px"]
    width, height = (int(resize_px * side / min(image.size)) for side in image.size)
    if preprocessing["3_resize_sides"] == "both":
        width = height = resize_px
    if (width, height) != image.size:
        image = image.resize((width, height), Resampling[preprocessing["3_resize_interpolation"].upper()])
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return np.ascontiguousarray(pixels.reshape(size, size, -1).transpose(2, 0, 1))


def pair(sample: Any) -> tuple[str, str]:
    """Return the two texts of a sample, a list or with a tab between them. Raises ValueError if they are not two."""
    texts = sample.split("\t") if isinstance(sample, str) else sample
    if len(texts) != 2:
        raise ValueError(f"{sample!r} is no pair of texts: expected two, with a tab between them")
    return texts[0], texts[1]


def token_inputs(tokenizer: Any, texts: Sequence[Any], preprocessing: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Token ids, mask and, if taken, token types, int64 (B, tokens of the longest): cut and padded on the right."""
    tokenizer.enable_truncation(preprocessing["2_max_length_tokens"])
    pad = preprocessing["3_pad_id"]
    encodings = tokenizer.encode_batch([pair(text) for text in texts] if preprocessing.get("1_pairs") else list(texts))
    ids = [encoding.ids or [pad] for encoding in encodings]
    lengths = np.array([len(row) for row in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded, types = np.full(mask.shape, pad, dtype=np.int64), np.zeros(mask.shape, dtype=np.int64)
    padded[mask] = np.concatenate(ids)
    types[mask] = np.concatenate([encoding.type_ids or [0] for encoding in encodings])
    inputs = {"input_ids": padded, "attention_mask": mask.astype(np.int64)}
    return {**inputs, "token_type_ids": types} if preprocessing.get("3_token_types") else inputs


if __name__ == "__main__":
    if len(sys.argv) < 2 or (len(sys.argv) == 2 and sys.stdin.isatty()):
        sys.exit(f"usage: python {Path(__file__).name} model.onnx sample ...")
    try:
        main(*sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
