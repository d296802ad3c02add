"""Names of a network's parameters in its own library, which exports and other people's files have."""

from collections.abc import Mapping

from torch import Tensor, nn

from thaw.models.backbone import RebuildRecipe
from thaw.models.network import HEAD, Network
from thaw.models.weights import without_prefix


def library_names(network: Network, recipe: RebuildRecipe) -> dict[str, str]:
    """By name in the state dict of `network`, the name in the network that `recipe` builds."""
    linear = linear_name(network.head) or ""
    names = {}
    for name in network.state_dict():
        part, _, path = name.partition(".")
        if recipe.head is not None:
            names[name] = f"{recipe.head}.{path.removeprefix(linear)}" if part == HEAD else path
        else:
            names[name] = name
    return names


def own_names(tensors: Mapping[str, Tensor], network: Network, recipe: RebuildRecipe | None) -> Mapping[str, Tensor]:
    """Tensors by the names of `network`, where they have those of its library; others keep their names.

    A linear head may also be called `head`, as in folders that thaw writes for Hugging Face.
    """
    if recipe is None or recipe.head is None:
        return tensors
    by_library = {theirs: own for own, theirs in library_names(network, recipe).items()}
    if (linear := linear_name(network.head)) is not None:
        by_library |= {f"{HEAD}.{name}": f"{HEAD}.{linear}{name}" for name in ("weight", "bias")}
    backbone = [name for name in by_library if by_library[name].startswith("backbone.")]
    return {by_library.get(name, name): value for name, value in without_prefix(tensors, backbone).items()}


def linear_name(head: nn.Module) -> str | None:
    """Prefix of the only layer's parameters, if a head is one linear layer in evaluation; None if it is more."""
    layers = [
        (name, module)
        for name, module in head.named_modules()
        if not isinstance(module, (nn.Sequential, nn.Dropout, nn.Identity))
    ]
    if torch_expression(head) is None or len(layers) != 1:
        return None
    name, layer = layers[0]
    return (name and f"{name}.") if isinstance(layer, nn.Linear) and layer.bias is not None else None


def last_linear(head: nn.Module) -> nn.Linear | None:
    """The layer of a head that gives its outputs, if that is a linear one with a bias in a chain of modules."""
    while isinstance(head, nn.Sequential) and len(head):
        head = head[-1]
    return head if isinstance(head, nn.Linear) and head.bias is not None else None


def torch_expression(module: nn.Module) -> str | None:
    """Python that makes a module with the same settings; None if it is not made of torch's own modules alone."""
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        return None
    if isinstance(module, nn.Sequential):
        parts = [torch_expression(part) for part in module]
        is_numbered = [name for name, _ in module.named_children()] == list(map(str, range(len(parts))))
        return None if None in parts or not is_numbered else f"torch.nn.Sequential({', '.join(map(str, parts))})"
    return None if any(module.children()) else f"torch.nn.{kind.__name__}({module.extra_repr()})"
