"""Averages of weights, and what BatchNorm needs after one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.training.features import features
from thaw.training.module import FineTuningModule

MOST_SAMPLES = 5_000
"""Training samples from which the statistics of BatchNorm are estimated."""

Weights = Mapping[str, Tensor]
"""Tensors by name, as a state dict has them."""


def average(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point on the line from `first` to `second` at `share`, 0..1; of whole numbers (counters) the second."""
    if not second.is_floating_point():
        return second
    return torch.lerp(first, second.to(first.dtype), share)  # the types differ in bf16-true


def between(first: Weights, second: Weights, share: float) -> dict[str, Tensor]:
    """`average` of each tensor. Those that only one of the two has stay as they are."""
    both = {name: average(first[name], second[name], share) for name in first.keys() & second.keys()}
    return {**first, **second, **both}


def mean(members: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of all weights, tensor by tensor."""
    found = dict(members[0])
    for number, member in enumerate(members[1:], start=2):
        found = between(found, member, 1 / number)
    return found


def changed_statistics(module: nn.Module, first: Weights, second: Weights) -> set[str]:
    """Names of the module's BatchNorm layers whose statistics differ between two states of it."""
    layers = [name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
    means = {name: f"{name}.running_mean" for name in layers if f"{name}.running_mean" in first}
    return {name for name, mean in means.items() if not torch.equal(first[mean], second[mean])}


def renew_statistics(trainer: Trainer, module: FineTuningModule, data: Any, layers: Iterable[str]) -> None:
    """Estimate the statistics of BatchNorm layers anew, as the mean over batches of training samples.

    Statistics that were averaged are those of no network (Izmailov et al. 2018). Samples are as in evaluation, and
    everything else in the network stays in evaluation mode.

    Args:
        trainer: a trainer that has measured the module.
        module: the module.
        data: its data module.
        layers: names of the layers in the module.
    """
    renewed = [layer for name in layers if isinstance(layer := module.get_submodule(name), _BatchNorm)]
    momenta = [layer.momentum for layer in renewed]
    module.to(trainer.strategy.root_device).eval()
    for layer in renewed:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    indices = np.random.default_rng(0).permutation(data.parts["train"])[:MOST_SAMPLES]
    if len(indices) % data.batch_size == 1:  # a batch of one has no variance
        indices = indices[:-1]
    features(trainer, module, data, "train", indices, [None])
    for layer, momentum in zip(renewed, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
