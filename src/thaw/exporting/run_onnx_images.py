"""Classify images with an exported network: `python run_onnx.py model.onnx image.jpg ...` prints a JSON line an image.

Needs onnxruntime, numpy and Pillow; image_file.py, which was exported with this file, lies beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    from image_file import load_image
except ImportError:  # where this file comes from
    from thaw.data.image_file import load_image


def main(model: str, *files: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    metadata = session.get_modelmeta().custom_metadata_map
    class_names, preprocessing = json.loads(metadata["class_names"]), json.loads(metadata["preprocessing"])
    for file in files:
        image = preprocess(load_image(file), preprocessing)
        (probabilities,) = session.run(None, {"images": image[None]})[0]
        best = int(probabilities.argmax())
        each = dict(zip(class_names, probabilities.tolist(), strict=True))
        print(json.dumps({"path": file, "label": class_names[best], "probabilities": each}, ensure_ascii=False))


def preprocess(image: Image.Image, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """RGB image -> (C, H, W): one side or both resized, the centre cut out. Scaling and mean are in the network."""
    image = image.convert(preprocessing["2_mode"])
    shorter, size = preprocessing["3_resize_px"], preprocessing["4_center_crop_px"]
    width, height = image.size
    if preprocessing["3_resize_sides"] == "both":
        width = height = shorter
    elif width < height:
        width, height = shorter, int(shorter * height / width)
    else:
        width, height = int(shorter * width / height), shorter
    method = Image.Resampling[preprocessing["3_resize_interpolation"].upper()]
    image = image.resize((width, height), method) if (width, height) != image.size else image
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return np.ascontiguousarray(pixels.reshape(size, size, -1).transpose(2, 0, 1))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: python {Path(__file__).name} model.onnx image ...")
    main(*sys.argv[1:])
