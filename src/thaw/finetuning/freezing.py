"""Freeze and unfreeze the parameters of a network."""

from thaw.models.network import Network


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
        module.training = own <= stages  # see keep_frozen_in_eval
    return changed


def keep_frozen_in_eval(network: Network) -> None:
    """Put frozen stages back into evaluation mode, after a `.train()` of the whole network.

    A module that holds several stages trains only if all of them do: its own code may run before a frozen one.
    """
    stages = _trained_stages(network)
    for module, own in network.modules_with_stages():
        if not own <= stages:
            module.training = False


def _trained_stages(network: Network) -> set[str]:
    """Stages of which at least one parameter trains."""
    stages = network.stage_parameters().items()
    return {stage for stage, named in stages if any(parameter.requires_grad for parameter in named.values())}
