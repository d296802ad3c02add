"""Seconds to check 10,000 image files, twice, and images a second of `predict` beside a bare loop over its network.

    python scripts/benchmark_files.py

The images are made up: noisy JPEGs of 320 x 240 pixels, 30 kB each.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from thaw.data.image_files import looked_into
from thaw.data.image_module import default_workers
from thaw.data.transforms import evaluation_transform, normalise
from thaw.models.network import Network, new_head
from thaw.models.torchvision import torchvision
from thaw.predicting.images import ImagePredictionDataset
from thaw.predicting.tables import Output, predictions, write
from thaw.storage import CACHE_VARIABLE
from thaw.tasks.single_label import SingleLabel

CLASSES = [f"class {number}" for number in range(10)]


class Files(Dataset[Any]):
    def __init__(self, files: list[Path], transform: Any):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def main(checked: int = 10_000, predicted: int = 1_000, repeats: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = made_up(Path(folder), checked)
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "cache")
        first, again = (seconds_to_check(files, Path(folder)) for _ in range(2))
        print(f"check: {checked:,} images in {first:.1f} s, again in {again:.2f} s\n")

        backbone = torchvision("mobilenet_v3_small", None)
        network = Network(backbone.stages, new_head(backbone.num_features, len(CLASSES), 0.0)).eval()
        network.to(memory_format=torch.channels_last)
        seconds: dict[str, list[float]] = {"predict": [], "bare loop": []}
        for _ in range(repeats):
            for name, run in (("predict", with_predict), ("bare loop", with_bare_loop)):
                begin = time.perf_counter()
                run(files[:predicted], backbone.input_spec, network, Path(folder))
                seconds[name].append(time.perf_counter() - begin)
    print("| | images / s (median) |\n|---|---|")
    speeds = {name: predicted / statistics.median(times) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.0f} |")
    ratios = [bare / ours for ours, bare in zip(seconds["predict"], seconds["bare loop"], strict=True)]
    print(f"\npredict has {statistics.median(ratios):.2f} x the speed of the bare loop (median of {repeats} pairs)")


def seconds_to_check(files: list[Path], root: Path) -> float:
    begin = time.perf_counter()
    assert not any(content.fault for content in looked_into(files, root))
    return time.perf_counter() - begin


def made_up(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(20):  # files are copies of a few, so that making them takes no time
        noise = generator.integers(0, 60, (240, 320, 3)) + np.linspace(0, 190, 320)[None, :, None]
        file = folder / "one.jpg"
        Image.fromarray(noise.astype(np.uint8)).save(file, quality=75)
        contents.append(file.read_bytes())
    files = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(contents[number % len(contents)])
        os.utime(file, (0, 0))  # what changed just now is not remembered
    return files


def with_predict(files: list[Path], spec: Any, network: Network, folder: Path) -> None:
    asked = ImagePredictionDataset(files, spec)
    found = predictions(asked, network, SingleLabel(len(CLASSES)), device="cpu")
    write(found, asked, CLASSES, 5, Output(folder / "out.csv", folder / "out.jsonl"))


def with_bare_loop(files: list[Path], spec: Any, network: Network, folder: Path) -> None:
    loader = DataLoader(Files(files, evaluation_transform(spec)), batch_size=64, num_workers=default_workers())
    with torch.inference_mode():
        for images in loader:
            network(normalise(images, spec)).softmax(1).tolist()


if __name__ == "__main__":
    main()
