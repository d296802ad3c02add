"""How the forward of a backbone runs: with activations that are computed again, or compiled."""

from typing import Any

import torch

from thaw.errors import UserError
from thaw.models.network import Network

FUNCTIONS = ("activation_checkpointing_enable", "gradient_checkpointing_enable", "set_grad_checkpointing")
"""Methods of Hugging Face, in its words of today and before, and of timm."""


def checkpoint_gradients(network: Network) -> None:
    """Keep only what enters the backbone's layers for the backward pass, which then computes their activations again.

    Raises:
        UserError: its library cannot do that with this network.
    """
    backbone: Any = network.backbone
    enable = next((getattr(backbone, name) for name in FUNCTIONS if hasattr(backbone, name)), None)
    try:
        if enable is None:
            raise ValueError("it is no network of timm or Hugging Face")
        enable()
    except (AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"gradient_checkpointing=true: {type(backbone).__name__} cannot compute activations again "
            f"({reason[0]}): type gradient_checkpointing=false, and a smaller data.batch_size with "
            f"trainer.accumulate_grad_batches if memory is short"
        ) from error
    network.is_whole = True


def compile_backbone(network: Network, backend: str) -> None:
    """Compile the backbone by torch when it first runs, and again for each set of parameters that trains.

    Raises:
        UserError: torch has no such backend.
    """
    if backend not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise UserError(f"compile_backend={backend} is none of {', '.join(known)}")
    network.backbone.compile(backend=backend)
    network.is_whole = True
