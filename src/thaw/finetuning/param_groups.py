"""Optimizer groups, all of them, from the first step: unfreezing never adds one."""

from collections.abc import Callable, Collection
from math import sqrt
from typing import Any

from torch import nn
from torch.optim import Optimizer

from thaw.errors import UserError

WORLD_FACTORS: dict[str, Callable[[int], float]] = {"none": lambda n: 1.0, "linear": float, "sqrt": sqrt}
WRAPPED = "_fsdp_wrapped_module."
"""What FSDP puts into the names of parameters."""


def build_optimizer(
    stages: nn.ModuleDict,
    optimizer: Callable[..., Optimizer],
    lr: float,
    backbone_lr_scale: float,
    lr_decay: float,
    weight_decay: float,
    lr_by_processes: str = "none",
    world_size: int = 1,
    decayed: Collection[str] | None = None,
) -> Optimizer:
    """`optimizer` (a torch class, or a partial of one) over the parameter groups of every stage.

    Every rate is multiplied by what `lr_by_processes` makes of `world_size`. `decayed`: see `param_groups`.
    """
    lr = lr * world_factor(lr_by_processes, world_size)
    return optimizer(param_groups(stages, lr, backbone_lr_scale, lr_decay, weight_decay, decayed), lr=lr)


def world_factor(rule: str, world_size: int) -> float:
    """Of rates, where several processes make a batch larger: linear (Goyal et al. 2017), sqrt (Krizhevsky 2014)."""
    if rule not in WORLD_FACTORS:
        raise UserError(f"optimizer.lr_by_processes is {', '.join(WORLD_FACTORS)}, not '{rule}'")
    return WORLD_FACTORS[rule](world_size)


def decayed_names(stages: nn.ModuleDict) -> frozenset[str]:
    """Of the parameters with two or more dimensions. Asked before a strategy cuts them into pieces of one dimension."""
    return frozenset(name for name, parameter in stages.named_parameters() if parameter.ndim >= 2)


def stage_lr(depth: int, lr: float, backbone_lr_scale: float, lr_decay: float) -> float:
    """Rate of the stage that lies `depth` stages below the head (Howard & Ruder 2018, discriminative fine-tuning)."""
    return lr if depth == 0 else lr * backbone_lr_scale * lr_decay**depth


def param_groups(
    stages: nn.ModuleDict,
    lr: float,
    backbone_lr_scale: float,
    lr_decay: float,
    weight_decay: float,
    decayed: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """One group per stage and decay kind; the head gets `lr`, see `stage_lr` for the stages below it.

    Norms, biases and other parameters with fewer than two dimensions are not decayed (`decayed`: the names of those
    that are, where parameters no longer tell). Frozen parameters are in their groups too: they have no gradient, so the
    optimizer skips them and keeps no state for them.
    """
    groups = []
    matrices = decayed_names(stages) if decayed is None else decayed
    filled = [(stage, module) for stage, module in stages.items() if next(module.parameters(), None) is not None]
    for depth, (stage, module) in enumerate(reversed(filled)):
        named = [(f"{stage}.{name}".replace(WRAPPED, ""), p) for name, p in module.named_parameters()]
        heavy = [p for name, p in named if name in matrices]
        plain = [p for name, p in named if name not in matrices]
        # Reversed with the rest below: "decay" stands before "no_decay" in the end.
        for kind, params, decay in (("no_decay", plain, 0.0), ("decay", heavy, weight_decay)):
            if params:
                rate = stage_lr(depth, lr, backbone_lr_scale, lr_decay)
                groups.append({"name": f"{stage}/{kind}", "params": params, "lr": rate, "weight_decay": decay})
    return groups[::-1]
