"""Freeze and unfreeze the parameters of a network."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.models.network import HEAD, Network


def freeze_all_but(network: Network, trained: frozenset[str]) -> bool:
    """Let the parameters with these addresses train, freeze all others; True if the state of any parameter changed.

    Frozen means no gradient. A stage without trained parameters is in evaluation mode, too: BatchNorm statistics stand
    still and dropout is off.
    """
    changed = False
    for parameters in network.stage_parameters().values():
        for name, parameter in parameters.items():
            trains = network.addresses[name] in trained
            changed |= parameter.requires_grad != trains
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None
    stages = _trained_stages(network)
    for module, own in network.modules_with_stages():
        module.training = _trains(network, module, own, stages)
    return changed


def keep_frozen_in_eval(network: Network) -> None:
    """Put frozen stages back into evaluation mode, after a `.train()` of the whole network.

    A module that holds several stages trains only if all of them do: its own code may run before a frozen one.
    """
    stages = _trained_stages(network)
    for module, own in network.modules_with_stages():
        if not _trains(network, module, own, stages):
            module.training = False


def _trains(network: Network, module: nn.Module, own: frozenset[str], stages: set[str]) -> bool:
    """Whether a module is to be in training mode; `own`: the stages that it holds, `stages`: those that train."""
    keeps_statistics = network.keeps_statistics and isinstance(module, _BatchNorm) and HEAD not in own
    return own <= stages and not keeps_statistics


def _trained_stages(network: Network) -> set[str]:
    """Stages of which at least one parameter trains."""
    stages = network.stage_parameters().items()
    return {stage for stage, named in stages if any(parameter.requires_grad for parameter in named.values())}
