"""The common result of all adapters (torchvision, timm, Hugging Face ...): a backbone, its stages and its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from thaw.models.pooling import Pool
from thaw.models.stages import Stages
from thaw.types import InputSpec


@dataclass(frozen=True)
class RebuildRecipe:
    """Python that builds the same network without thaw, for whoever loads exported weights."""

    imports: Sequence[str]
    """Modules to import."""
    build: Sequence[str]
    """Lines that make `network`; `{num_classes}` and `{folder}` (of the exported file) are filled in."""
    head: str | None
    """Dotted name of the head's linear layer; None if `network` is a thaw.models.network.Network."""
    logits: str = "network(inputs)"
    """Expression for the logits (B, C) of `inputs`; for texts these are `input_ids` and `attention_mask`."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head, and the names of its stages."""

    network: nn.Module
    """The library's own module. Images (B, C, H, W) -> features (B, D). With `pool`, it is called with `input_ids` and
    `attention_mask`, both (B, T), and its result has `last_hidden_state` (B, T, D)."""
    stages: Stages
    """Names of its parameters by stage, input to output."""
    num_features: int
    """D, the width of the features."""
    input_spec: InputSpec
    pool: Pool | None = None
    """Turns hidden states into features; None if `network` returns features."""
    recipe: RebuildRecipe | None = None
    """How to build the network without thaw; None if that is impossible, then only whole programs are exported."""
    settings: Mapping[str, Any] | None = None
    """Plain values that its adapter needs to rebuild it, besides its keywords and the input spec; None if none."""
