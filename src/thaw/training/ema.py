"""An exponential moving average of the weights."""

from itertools import chain
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from thaw.training.averaging import average


class EMA(WeightAveraging):
    """Averages the weights after every optimizer step; the average is validated, saved in checkpoints and tested.

    The average moves towards the weights by a share of 1 - `decay`. Frozen weights stay as they are to the last bit:
    Lightning's EMAWeightAveraging computes decay * average + (1 - decay) * weights, which rounds even where both are
    equal, and averages counters (BatchNorm's) as if they were weights.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.decay = decay

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Update the average. Lightning's own method waits for the device in every step to count the updates."""
        if trainer.global_step <= self._latest_update_step:  # gradients are being accumulated
            return
        assert self._average_model is not None
        share = 1 - self.decay if self._latest_update_step else 1.0
        for averaged, current in zip(_state(self._average_model.module), _state(pl_module), strict=True):
            averaged.copy_(average(averaged, current, share))
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step


def _state(module: nn.Module) -> "chain[Tensor]":
    return chain(module.parameters(), module.buffers())
