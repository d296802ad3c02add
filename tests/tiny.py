"""A network so small that a whole run takes a second; with BatchNorm and dropout, which are easy to get wrong. And data
that are at hand at once."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thaw.models.backbone import Backbone
from thaw.models.stages import child_stages
from thaw.training.module import FineTuningModule
from thaw.types import Batch, ImageSpec, StepOutput


def backbone(weights: None = None, dropout: float = 0.2, channels: int = 1) -> Backbone:
    stages = {
        "stem": _block(channels, 8, dropout),
        "layer1": _block(8, 8, dropout),
        "layer2": nn.Sequential(_block(8, 16, dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return chain(stages, 16, ImageSpec(8, channels, (0.3,) * channels, (0.35,) * channels))


def chain(stages: dict[str, nn.Module], num_features: int, spec: ImageSpec) -> Backbone:
    """Stages that run one after the other."""
    network = nn.Sequential(OrderedDict(stages))
    return Backbone(network, child_stages(network), num_features, spec)


def _block(inputs: int, outputs: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(dropout))


def made_up(kinds: list[str], weights: None = None) -> Backbone:
    """A stage for each of `kinds`, which says what it is made of: any of "conv norm statistics dropout pool"."""
    stages, channels = {}, 1
    for number, kind in enumerate(kinds):
        parts: list[nn.Module] = []
        for part in kind.split():
            if part == "conv":
                parts += [nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh()]
                channels = 4
            elif part == "norm":
                parts += [nn.BatchNorm2d(channels), nn.Tanh()]  # another norm right behind it would undo it
            elif part == "statistics":
                parts.append(nn.BatchNorm2d(channels, affine=False))
            elif part == "dropout":
                parts.append(nn.Dropout(0.2))
            else:
                assert part == "pool"
                parts += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        stages[f"stage{number}"] = nn.Sequential(*parts)
    return chain(stages, channels * 4, ImageSpec(8, 1, (0.0,), (1.0,)))


class Noise:
    """60 images of 8 x 8 random pixels in three classes: 42 to train on, 9 for each of the other splits."""

    class_names = ("a", "b", "c")

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self.images[index], index % 3


def smooth(weights: None = None) -> Backbone:
    """Without BatchNorm and dropout: what two processes make of a batch is what one makes of it."""
    stages = {
        "stem": nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()),
        "layer1": nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        "layer2": nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return chain(stages, 16, ImageSpec(8, 1, (0.3,), (0.35,)))


class TwoScales(nn.Module):
    """A head that is not made of torch's own modules: two layers, and a scale of its own."""

    def __init__(self, num_features: int, num_outputs: int, scale: float):
        super().__init__()
        self.first, self.second = nn.Linear(num_features, 5), nn.Linear(5, num_outputs)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.second(torch.relu(self.first(features)))


class Shifted(FineTuningModule):
    """Trains a shift of its own beside the network, and has a frozen part with dropout and BatchNorm."""

    def __init__(self, **parts: Any):
        super().__init__(**parts)
        self.shift = nn.Parameter(torch.zeros(len(self.class_names)))
        self.frozen = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Dropout()).requires_grad_(False)

    def step(self, batch: Batch) -> StepOutput:
        assert not any(part.training for part in self.frozen.modules())
        logits = self(batch) + self.shift
        return StepOutput(self.task.loss(logits, batch.target), logits, batch.target, batch.index)


def seeded(seed: int) -> None:
    """A source with an argument that is the data module's."""


def stage_names(stages: list[str], epochs: int) -> list[str]:
    """What is no plan."""
    return stages


def no_factor(step: int, steps: int) -> str:
    return "linear"
