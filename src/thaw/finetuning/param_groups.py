"""Parameter groups: all of them exist from the first step, so unfreezing never adds one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch.nn import Parameter

from thaw.models.network import Network

OTHERS = "others"
"""Name in groups of trainable parameters that a LightningModule has besides its network."""


@dataclass(frozen=True)
class Rates:
    """Learning rates by stage: discriminative fine-tuning (Howard & Ruder 2018)."""

    lr: float
    """Rate of the head."""
    backbone_lr_scale: float = 1.0
    """Factor on the rates of all stages below the head."""
    lr_decay: float = 1.0
    """Factor from the rate of each stage to that of the stage below it."""

    def at(self, depth: int) -> float:
        """Rate of the stage `depth` stages below the head."""
        return self.lr if depth == 0 else self.lr * self.backbone_lr_scale * self.lr_decay**depth


def decayed_names(network: Network) -> frozenset[str]:
    """Names of the parameters with two or more dimensions. Call it before a strategy flattens and shards them."""
    return frozenset(name for name, parameter in network.named_parameters() if parameter.ndim >= 2)


def param_groups(
    network: Network,
    rates: Rates,
    weight_decay: float,
    decayed: Collection[str] | None = None,
    others: Mapping[str, Parameter] | None = None,
) -> list[dict[str, Any]]:
    """One group per stage and decay kind, named `stage/decay` or `stage/no_decay`, input to output.

    Parameters with fewer than two dimensions (norms, biases) are not decayed. Frozen parameters are in their groups
    too: they have no gradient, so the optimizer skips them and keeps no state for them.

    Args:
        network: the network to train.
        rates: the rate of each stage.
        weight_decay: decay of the `decay` groups.
        decayed: names of the parameters to decay, if their dimensions no longer show it; see `decayed_names`.
        others: more parameters to train, at the rate of the head.
    """
    matrices = decayed_names(network) if decayed is None else decayed
    stages = [(stage, named) for stage, named in network.stage_parameters().items() if named]
    depths = {stage: len(stages) - 1 - position for position, (stage, _) in enumerate(stages)}
    if others:
        matrices = {*matrices, *(name for name, parameter in others.items() if parameter.ndim >= 2)}
        stages.append((OTHERS, dict(others)))
    groups = []
    for stage, named in stages:
        for kind, decay, is_matrix in (("decay", weight_decay, True), ("no_decay", 0.0, False)):
            if params := [parameter for name, parameter in named.items() if (name in matrices) == is_matrix]:
                rate = rates.at(depths.get(stage, 0))
                groups.append({"name": f"{stage}/{kind}", "params": params, "lr": rate, "weight_decay": decay})
    return groups
