"""A cut of a network in two halves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """The two halves of a backbone: `suffix(prefix(inputs))` equals `network.features(inputs)`."""

    start: int
    """Number of the stage that the activations enter."""
    prefix: Callable[[Any], Any]
    """Raw inputs -> activations: a tensor (B, ...), or `TokenStates`."""
    suffix: Callable[[Any], Tensor]
    """Activations -> features (B, D)."""
    shape: tuple[int, ...]
    """Shape of the activations of one sample; for texts, of one token."""
    dtype: torch.dtype
    """Type of the activations without mixed precision."""
