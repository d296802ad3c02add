"""What every adapter hands over, whatever library its network came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from thaw.types import InputSpec


@dataclass(frozen=True)
class RebuildRecipe:
    """How to build the same network where exported weights are loaded: by its own library, without thaw."""

    imports: Sequence[str]
    """Modules."""
    build: Sequence[str]
    """Lines of Python that make `network`, with `{num_classes}` where the number of classes goes."""
    head: str | None
    """Where the head's linear layer is in it; None where `network` is a thaw.models.network.Network."""
    names: Mapping[str, str] = field(default_factory=dict)
    """For prefixes of the stages' tensors, the ones in `network`; for all others it is what follows the stage."""
    logits: str = "network(inputs)"
    """What gives logits (B, C) of `inputs`, of which texts have two: {"input_ids": ..., "attention_mask": ...}."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head, cut into stages."""

    stages: dict[str, nn.Module]
    """Input to output; the last one ends in features of shape (B, D)."""
    num_features: int
    """D, the width of those features."""
    input_spec: InputSpec
    library: RebuildRecipe | None = None
    """None where nobody else can build it: it is exported whole only."""
    settings: Mapping[str, Any] | None = None
    """What it takes to build the same again, beside the keywords and the input spec; plain values."""
