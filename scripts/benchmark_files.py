"""Measure how fast image files are checked, and how fast `predict` classifies them beside a plain PyTorch loop.

    python scripts/benchmark_files.py
    python scripts/benchmark_files.py --checked 500 --predicted 128 --repeats 1    # a short try

Prints the seconds to check 10,000 files, twice, and images per second of 1,000 predictions. The images are generated:
noisy JPEGs of 320 x 240 pixels, 30 kB each.
"""

import argparse
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

from thaw.data.image_files import check_files
from thaw.data.loader import default_workers
from thaw.data.transforms import evaluation_transform, normalise
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.models.torchvision import torchvision
from thaw.predicting.images import ImagePredictionDataset
from thaw.predicting.predictions import predictions
from thaw.predicting.tables import OutputFiles, write_predictions
from thaw.storage import CACHE_VARIABLE
from thaw.tasks.single_label import SingleLabel
from thaw.types import ImageSpec

CLASSES = [f"class {number}" for number in range(10)]


class PlainImages(Dataset[Any]):
    """Transformed images, one by one: the data set of the plain loop."""

    def __init__(self, files: list[Path], transform: Any):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def main() -> None:
    """Measure and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checked", type=int, default=10_000, help="number of files to check")
    parser.add_argument("--predicted", type=int, default=1_000, help="number of those to classify")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    predicted, repeats = options.predicted, options.repeats
    with tempfile.TemporaryDirectory() as folder:
        files = generate_files(Path(folder), options.checked)
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "cache")
        first, second = (seconds_to_check(files, Path(folder)) for _ in range(2))
        print(f"check: {options.checked:,} images in {first:.1f} s, again in {second:.2f} s\n")

        backbone = torchvision("mobilenet_v3_small", None)
        network = Network(backbone, linear(backbone.num_features, len(CLASSES), 0.0)).eval()
        network.to(memory_format=torch.channels_last)
        spec = backbone.input_spec
        assert isinstance(spec, ImageSpec)
        seconds: dict[str, list[float]] = {"predict": [], "plain loop": []}
        for _ in range(repeats):
            for name, run in (("predict", with_predict), ("plain loop", with_plain_loop)):
                begin = time.perf_counter()
                run(files[:predicted], spec, network, Path(folder))
                seconds[name].append(time.perf_counter() - begin)
    print("| | images / s (median) |\n|---|---|")
    speeds = {name: predicted / statistics.median(times) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.0f} |")
    ratios = [plain / ours for ours, plain in zip(seconds["predict"], seconds["plain loop"], strict=True)]
    print(f"\npredict has {statistics.median(ratios):.2f} x the speed of the plain loop (median of {repeats} pairs)")


def seconds_to_check(files: list[Path], root: Path) -> float:
    """Check all files as a data module does, and return how long it took."""
    begin = time.perf_counter()
    assert not any(file.fault for file in check_files(files, root))
    return time.perf_counter() - begin


def generate_files(folder: Path, count: int) -> list[Path]:
    """Write `count` images into `folder`."""
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(20):  # the files are copies of 20 images, so that writing them is fast
        noise = generator.integers(0, 60, (240, 320, 3)) + np.linspace(0, 190, 320)[None, :, None]
        file = folder / "one.jpg"
        Image.fromarray(noise.astype(np.uint8)).save(file, quality=75)
        contents.append(file.read_bytes())
    files = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(contents[number % len(contents)])
        os.utime(file, (0, 0))  # an old date: files that changed just now are not remembered as checked
    return files


def with_predict(files: list[Path], spec: ImageSpec, network: Network, folder: Path) -> None:
    """Classify the files and write the tables, as `thaw.predict` does."""
    dataset = ImagePredictionDataset(files, spec)
    task = SingleLabel(len(CLASSES))
    results = predictions(dataset, [(network, task)], device="cpu")
    write_predictions(results, dataset, task, CLASSES, 5, OutputFiles(folder / "out.csv", folder / "out.jsonl"))


def with_plain_loop(files: list[Path], spec: ImageSpec, network: Network, folder: Path) -> None:
    """Classify the files and write nothing."""
    loader = DataLoader(PlainImages(files, evaluation_transform(spec)), batch_size=64, num_workers=default_workers())
    with torch.inference_mode():
        for images in loader:
            network(normalise(images, spec)).softmax(1).tolist()


if __name__ == "__main__":
    main()
