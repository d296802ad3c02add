"""An exponential moving average of the weights that leaves frozen stages as they are, to the last bit."""

from functools import partial

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Averages after every step: `average` moves towards the weights by 1 - `decay`.

    Lightning's EMAWeightAveraging computes decay x average + (1 - decay) x weights, which in floats is not the weight
    where both are equal, and averages counters (BatchNorm's) as if they were weights.
    """

    def __init__(self, decay: float):
        super().__init__(avg_fn=partial(average, decay=decay))


def average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int, decay: float) -> Tensor:
    if not current.is_floating_point():
        return current
    return torch.lerp(averaged, current.to(averaged.dtype), 1 - decay)  # which differ in bf16-true
