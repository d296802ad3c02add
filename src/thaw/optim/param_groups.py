"""Optimizer groups, all of them, from the first step: unfreezing never adds one."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer


def stage_optimizer(
    stages: nn.ModuleDict,
    optimizer: Callable[..., Optimizer],
    lr: float,
    backbone_lr_scale: float,
    lr_decay: float,
    weight_decay: float,
) -> Optimizer:
    """`optimizer` (a torch class, or a partial of one) over the parameter groups of every stage."""
    return optimizer(param_groups(stages, lr, backbone_lr_scale, lr_decay, weight_decay), lr=lr)


def stage_lr(depth: int, lr: float, backbone_lr_scale: float, lr_decay: float) -> float:
    """Rate of the stage that lies `depth` stages below the head (Howard & Ruder 2018, discriminative fine-tuning)."""
    return lr if depth == 0 else lr * backbone_lr_scale * lr_decay**depth


def param_groups(
    stages: nn.ModuleDict, lr: float, backbone_lr_scale: float, lr_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """One group per stage and decay kind; the head gets `lr`, see `stage_lr` for the stages below it.

    Norms, biases and other parameters with fewer than two dimensions are not decayed. Frozen parameters are in their
    groups too: they have no gradient, so the optimizer skips them and keeps no state for them.
    """
    groups = []
    filled = [(stage, module) for stage, module in stages.items() if next(module.parameters(), None) is not None]
    for depth, (stage, module) in enumerate(reversed(filled)):
        decayed = [p for p in module.parameters() if p.ndim >= 2]
        plain = [p for p in module.parameters() if p.ndim < 2]
        # Reversed with the rest below: "decay" stands before "no_decay" in the end.
        for kind, params, decay in (("no_decay", plain, 0.0), ("decay", decayed, weight_decay)):
            if params:
                rate = stage_lr(depth, lr, backbone_lr_scale, lr_decay)
                groups.append({"name": f"{stage}/{kind}", "params": params, "lr": rate, "weight_decay": decay})
    return groups[::-1]
