"""Digits that go wrong on one process of a run."""

import os
import signal
from typing import Any

import torch
from torch.utils.data import Dataset

from thaw.data.digits import Digits
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.types import Batch, BatchRequest


class Broken(Digits):
    """On process `rank`, `how`: `raise` (a UserError), `crash` (a KeyError), `infinite` (a loss), `die` or `build`."""

    def __init__(self, rank: int, how: str, **choices: Any):
        super().__init__(**choices)
        self.how = how if rank == ranks().rank else ""
        if self.how == "build":
            raise UserError("it cannot be built here")

    def dataset(self, split: str | None = None) -> Dataset[Batch]:
        return Third(super().dataset(split), self.how)


class Third(Dataset[Batch]):
    """Goes wrong in the third training batch."""

    def __init__(self, dataset: Dataset[Batch], how: str):
        self.dataset, self.how, self.count = dataset, how, 0

    def __getitem__(self, key: BatchRequest) -> Batch:
        batch = self.dataset[key]
        self.count += torch.is_grad_enabled()
        if self.count != 3:
            return batch
        if self.how == "raise":
            raise UserError("a sample cannot be read")
        if self.how == "crash":
            raise KeyError("a fault of the program")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        assert isinstance(batch.inputs, torch.Tensor)
        return batch._replace(inputs=batch.inputs * torch.nan) if self.how == "infinite" else batch
