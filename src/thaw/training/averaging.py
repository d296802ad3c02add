"""Averages of weights, and the statistics of BatchNorm that go with them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.training.module import FineTuningModule
from thaw.types import BatchRequest

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


def changed_statistics(module: nn.Module, first: Weights, second: Weights) -> set[str]:
    """Names of the module's BatchNorm layers whose statistics differ between two states of it."""
    layers = [name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
    means = {name: f"{name}.running_mean" for name in layers if f"{name}.running_mean" in first}
    return {name for name, mean in means.items() if not torch.equal(first[mean], second[mean])}


def renew_statistics(trainer: Trainer, module: FineTuningModule, data: Any, layers: Iterable[str]) -> None:
    """Estimate the statistics of BatchNorm layers anew, as the mean over batches of training samples.

    Statistics that were averaged are those of no network (Izmailov et al. 2018). Samples are as in evaluation, and
    everything else in the network stays in evaluation mode. Layers that `forward` does not use stay as they are.

    Args:
        trainer: a trainer that has measured the module.
        module: the module.
        data: its data module.
        layers: names of the layers in the module.
    """
    renewed = [layer for name in layers if isinstance(layer := module.get_submodule(name), _BatchNorm)]
    before = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in renewed]
    momenta = [layer.momentum for layer in renewed]
    module.to(trainer.strategy.root_device).eval()
    for layer in renewed:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    indices = np.random.default_rng(0).permutation(data.parts["train"])[:MOST_SAMPLES].tolist()
    batches = [indices[start : start + data.batch_size] for start in range(0, len(indices), data.batch_size)]
    requests = [BatchRequest(batch, None) for batch in batches if len(batch) > 1]  # a single sample has no variance
    for batch in data.raw_loader("train", requests):
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            module(trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch)))
    for layer, state, momentum in zip(renewed, before, momenta, strict=True):
        if not layer.num_batches_tracked:
            layer.load_state_dict(state)
        layer.momentum = momentum
        layer.eval()
