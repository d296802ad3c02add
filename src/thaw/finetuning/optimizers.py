"""Builds any optimizer of torch over the parameter groups of a network."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from math import sqrt
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from thaw.errors import UserError
from thaw.finetuning.param_groups import Rates, param_groups
from thaw.models.network import Network

log = logging.getLogger(__name__)

MakeOptimizer = Callable[..., Optimizer]
"""An optimizer class of torch, or a partial of one."""
WORLD_FACTORS: dict[str, Callable[[int], float]] = {"none": lambda n: 1.0, "linear": float, "sqrt": sqrt}


def build_optimizer(
    network: Network,
    optimizer: MakeOptimizer,
    rates: Rates,
    weight_decay: float,
    lr_by_processes: str = "none",
    world_size: int = 1,
    decayed: Collection[str] | None = None,
    others: Mapping[str, Parameter] | None = None,
) -> Optimizer:
    """An optimizer over the parameter groups of every stage of `network`.

    Parameters of a shape that `optimizer` does not take (Muon takes matrices only) are trained by AdamW.

    Args:
        network: the network to train.
        optimizer: makes the optimizer from parameter groups.
        rates: the rate of each stage.
        weight_decay: decay of matrices and kernels; norms and biases have none.
        lr_by_processes: rule that scales all rates by the number of processes: none, linear or sqrt.
        world_size: number of processes.
        decayed: see `param_groups`.
        others: see `param_groups`.

    Raises:
        UserError: the optimizer takes no parameter groups, or not its options.
    """
    rates = replace(rates, lr=rates.lr * world_factor(lr_by_processes, world_size))
    groups = param_groups(network, rates, weight_decay, decayed, others)
    try:
        return optimizer([dict(group) for group in groups], lr=rates.lr)  # copies: it writes its defaults into them
    except (TypeError, ValueError) as error:  # values that it does not take, or something that is no optimizer
        taken, left = _divide(groups, optimizer)
        if not taken or not left:
            raise UserError(
                f"optimizer: {error}. Mend its option, or take another: optimizer=adamw, optimizer=sgd"
            ) from error
    _report(sum(len(group["params"]) for group in left))
    return PairedOptimizer(optimizer(taken, lr=rates.lr), AdamW(left, lr=rates.lr))


def world_factor(rule: str, world_size: int) -> float:
    """Factor on rates when several processes enlarge the batch: linear (Goyal et al. 2017), sqrt (Krizhevsky 2014)."""
    return WORLD_FACTORS[rule](world_size)


@cache
def _report(count: int) -> None:
    log.info("the optimizer takes tensors of some shapes only: %d others are trained by AdamW", count)


class PairedOptimizer(Optimizer):
    """Two optimizers as one, each with parameters of its own. Groups and state are shared with them."""

    def __init__(self, first: Optimizer, second: Optimizer):
        self.pair = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both, after one call of `closure`; return what it returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state, and share them again: torch replaces both."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        first, second = self.pair
        count = len(first.param_groups)
        first.param_groups, second.param_groups = self.param_groups[:count], self.param_groups[count:]
        first.state = second.state = self.state


def _divide(
    groups: list[dict[str, Any]], optimizer: MakeOptimizer
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide groups into parameters that `optimizer` takes by their number of dimensions, and others."""
    accepted = {ndim for ndim in {p.ndim for group in groups for p in group["params"]} if _accepts(optimizer, ndim)}
    taken, left = [], []
    for group in groups:
        if params := [parameter for parameter in group["params"] if parameter.ndim in accepted]:
            taken.append({**group, "params": params})
        if params := [parameter for parameter in group["params"] if parameter.ndim not in accepted]:
            left.append({**group, "params": params, "name": f"{group['name']}/AdamW"})
    return taken, left


def _accepts(optimizer: MakeOptimizer, ndim: int) -> bool:
    try:
        optimizer([Parameter(torch.zeros([1] * ndim))], lr=1.0)
    except (TypeError, ValueError):
        return False
    return True
