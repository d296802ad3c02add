"""What a network is asked about."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset


class PredictionDataset(Dataset[Any]):
    """Samples in the order in which they were named; those that cannot be used are among them."""

    column: str
    """What they are called in the table of predictions: path, text."""
    numbered: bool
    """Whether their number is in it, too: a text says not where it stood."""
    workers: int
    """Loader processes that pay."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, batch_size: int) -> list[list[int]]:
        return [list(range(i, min(i + batch_size, len(self)))) for i in range(0, len(self), batch_size)]

    def notes(self) -> list[str]:
        """What is worth knowing of all of them."""
        return []

    def place(self, index: int) -> str:
        """What a sample is called in messages."""
        return self.names[index]

    @abstractmethod
    def __getitem__(self, indices: list[int]) -> tuple[Any, list[str | None]]:
        """Inputs of those of the samples that can be used (None: of none of them); and what is wrong with each."""

    @abstractmethod
    def on_device(self, inputs: Any, device: torch.device) -> Any:
        """As the network takes them."""
