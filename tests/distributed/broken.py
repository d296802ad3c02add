"""Digits that go wrong on one process of a run."""

import os
import signal
from collections.abc import Sequence
from typing import Any

import torch

from thaw.data import image_module
from thaw.data.digits import Digits
from thaw.distributed.ranks import ranks
from thaw.errors import UserError


class Broken(Digits):
    """On process `rank`, in its third training batch, `how`: `raise` (UserError), `crash`, `infinite` (loss) or `die`.

    `build` goes wrong at once. The data must be augmented, or images are read only once.
    """

    version = "1"  # without it all images are read before training

    def __init__(self, rank: int, how: str):
        super().__init__()
        self.how, self.count = how if rank == ranks().rank else "", 0
        if self.how == "build":
            raise UserError("it cannot be built here")

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        in_training = torch.is_grad_enabled() and len(indices) > 1  # the first sample is read before training
        self.count += in_training
        if self.count == 3 and in_training:
            if self.how == "raise":
                raise UserError("a sample cannot be read")
            if self.how == "crash":
                raise KeyError("a fault of the program")
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "infinite":
                image_module.normalise = lambda images, spec: images * torch.nan
        return [self[index] for index in indices]
