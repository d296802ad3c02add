"""Freeze and unfreeze the stages of a network."""

from thaw.models.network import Network


def freeze_all_but(network: Network, trained: frozenset[str]) -> bool:
    """Let the stages `trained` train and freeze all others; True if the state of any parameter changed.

    Frozen means no gradient and evaluation mode: BatchNorm statistics stand still and dropout is off.
    """
    changed = False
    for stage, parameters in network.stage_parameters().items():
        trains = stage in trained
        for parameter in parameters.values():
            changed |= parameter.requires_grad != trains
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None
    for module, stages in network.modules_with_stages():
        module.training = stages <= trained  # see keep_frozen_in_eval
    return changed


def keep_frozen_in_eval(network: Network) -> None:
    """Put frozen stages back into evaluation mode, after a `.train()` of the whole network.

    A module that holds several stages trains only if all of them do: its own code may run before a frozen one.
    """
    stages_with_parameters = network.stage_parameters().items()
    trained = {stage for stage, named in stages_with_parameters if any(p.requires_grad for p in named.values())}
    for module, stages in network.modules_with_stages():
        if not stages <= trained:
            module.training = False
