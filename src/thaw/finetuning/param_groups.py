"""Optimizer groups: all of them exist from the first step, so unfreezing never adds one."""

from collections.abc import Callable, Collection
from math import sqrt
from typing import Any

from torch.optim import Optimizer

from thaw.errors import UserError
from thaw.models.network import Network

WORLD_FACTORS: dict[str, Callable[[int], float]] = {"none": lambda n: 1.0, "linear": float, "sqrt": sqrt}


def build_optimizer(
    network: Network,
    optimizer: Callable[..., Optimizer],
    lr: float,
    backbone_lr_scale: float,
    lr_decay: float,
    weight_decay: float,
    lr_by_processes: str = "none",
    world_size: int = 1,
    decayed: Collection[str] | None = None,
) -> Optimizer:
    """An optimizer over the parameter groups of every stage of `network`.

    Args:
        network: the network to train.
        optimizer: a torch optimizer class, or a partial of one.
        lr: rate of the head.
        backbone_lr_scale: factor on the rates of all stages below the head.
        lr_decay: factor on the rate for each stage further down.
        weight_decay: decay of matrices and kernels; norms and biases have none.
        lr_by_processes: rule that scales all rates by the number of processes: none, linear or sqrt.
        world_size: number of processes.
        decayed: see `param_groups`.

    Raises:
        UserError: `lr_by_processes` is none of these.
    """
    lr = lr * world_factor(lr_by_processes, world_size)
    return optimizer(param_groups(network, lr, backbone_lr_scale, lr_decay, weight_decay, decayed), lr=lr)


def world_factor(rule: str, world_size: int) -> float:
    """Factor on rates when several processes enlarge the batch: linear (Goyal et al. 2017), sqrt (Krizhevsky 2014)."""
    if rule not in WORLD_FACTORS:
        raise UserError(f"optimizer.lr_by_processes is {', '.join(WORLD_FACTORS)}, not '{rule}'")
    return WORLD_FACTORS[rule](world_size)


def decayed_names(network: Network) -> frozenset[str]:
    """Names of the parameters with two or more dimensions. Call it before a strategy flattens and shards them."""
    return frozenset(name for name, parameter in network.named_parameters() if parameter.ndim >= 2)


def stage_lr(depth: int, lr: float, backbone_lr_scale: float, lr_decay: float) -> float:
    """Rate of the stage `depth` stages below the head: discriminative fine-tuning (Howard & Ruder 2018)."""
    return lr if depth == 0 else lr * backbone_lr_scale * lr_decay**depth


def param_groups(
    network: Network,
    lr: float,
    backbone_lr_scale: float,
    lr_decay: float,
    weight_decay: float,
    decayed: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """One group per stage and decay kind, named `stage/decay` or `stage/no_decay`, input to output.

    Parameters with fewer than two dimensions (norms, biases) are not decayed. Frozen parameters are in their groups
    too: they have no gradient, so the optimizer skips them and keeps no state for them.

    Args:
        network: the network to train.
        lr: rate of the head; see `stage_lr` for the stages below it.
        backbone_lr_scale: see `stage_lr`.
        lr_decay: see `stage_lr`.
        weight_decay: decay of the `decay` groups.
        decayed: names of the parameters to decay, if their dimensions no longer show it; see `decayed_names`.
    """
    matrices = decayed_names(network) if decayed is None else decayed
    stages = [(stage, named) for stage, named in network.stage_parameters().items() if named]
    groups = []
    for position, (stage, named) in enumerate(stages):
        rate = stage_lr(len(stages) - 1 - position, lr, backbone_lr_scale, lr_decay)
        for kind, decay, is_matrix in (("decay", weight_decay, True), ("no_decay", 0.0, False)):
            if params := [parameter for name, parameter in named.items() if (name in matrices) == is_matrix]:
                groups.append({"name": f"{stage}/{kind}", "params": params, "lr": rate, "weight_decay": decay})
    return groups
