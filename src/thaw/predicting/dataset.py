"""Base class of datasets to classify, in which some samples may be unusable."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset


class PredictionDataset(Dataset[Any], ABC):
    """Samples to classify, in the order in which the user named them, unusable ones included.

    Attributes:
        columns: Names of the columns that say which sample a row of the table of predictions is about.
        default_workers: Number of loader processes unless the user sets it; 0 loads in the main process.
        names: Path or text of each sample.
        order: Indices of all samples, in the order in which they are loaded.
    """

    columns: tuple[str, ...]
    default_workers: int

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.order = list(range(len(names)))

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, indices: list[int]) -> tuple[Any, list[str | None]]:
        """Load a batch: inputs of the usable samples (None if there is none); each sample's fault, None if usable."""

    @abstractmethod
    def to_network(self, inputs: Any, device: torch.device) -> Any:
        """Move a batch to a device, and turn it into what the network takes."""

    def identify(self, index: int) -> tuple[Any, ...]:
        """Values of `columns` for a sample."""
        return (self.names[index],)

    def place(self, index: int) -> str:
        """Where a sample comes from, for messages."""
        return self.names[index]

    def notes(self) -> list[str]:
        """Lines about the samples as a whole that the user should see."""
        return []
