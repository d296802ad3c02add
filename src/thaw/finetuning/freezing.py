"""Freeze and unfreeze the stages of a network."""

from torch import nn


def freeze_all_but(stages: nn.ModuleDict, trained: frozenset[str]) -> bool:
    """Let `trained` stages train and freeze the rest; True if any parameter's state changed.

    Frozen means no gradient and evaluation mode: BatchNorm statistics stand still, dropout is off.
    """
    changed = False
    for name, stage in stages.items():
        trains = name in trained
        stage.train(trains)
        for parameter in stage.parameters():
            changed |= parameter.requires_grad != trains
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None
    return changed


def keep_frozen_in_eval(stages: nn.ModuleDict) -> None:
    """Put every frozen stage back into evaluation mode, after a `.train()` that went over the whole network."""
    for stage in stages.values():
        if not any(parameter.requires_grad for parameter in stage.parameters()):
            stage.eval()
