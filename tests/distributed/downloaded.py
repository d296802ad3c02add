"""A data set of torchvision that is downloaded, as far as the code under test can tell."""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import datasets

from thaw.data.torchvision_dataset import TorchvisionDataset


class Counted(torch.utils.data.Dataset[Any]):
    """Notes in `downloads.txt` which process has downloaded."""

    def __init__(self, root: str, train: bool, download: bool):
        downloads = Path(root) / "downloads.txt"
        if download:
            _note(downloads)
        elif not downloads.exists():
            raise RuntimeError("there are no files yet")
        self.targets = [index % 10 for index in range(400 if train else 50)]
        self.classes = [str(number) for number in range(10)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (8, 8), self.targets[index] * 25), self.targets[index]


def _note(file: Path) -> None:
    with file.open("a") as notes:
        notes.write(f"process {os.environ.get('RANK', 'alone')}\n")


def data(**choices: Any) -> TorchvisionDataset:
    """To be named by `data._target_`."""
    vars(datasets)["Counted"] = Counted
    datasets.__all__ = (*datasets.__all__, "Counted")  # type: ignore[assignment]
    return TorchvisionDataset(**choices)
