"""Stages of a text network: its embeddings, and each of its layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.stages import Stages


def layer_stages(network: Any) -> Stages:
    """`embeddings`, `layer0`, `layer1` ... of a network that takes `input_ids` and `attention_mask`, both (B, T).

    Layers are the entries of the module lists that hold most parameters. What runs only after the last layer, such as a
    final norm, goes with it; all other parameters belong to `embeddings`, since any layer may use them.

    Raises:
        UserError: the network has no list of layers.
    """
    lists = _layer_lists(network)
    if not lists:
        raise UserError(f"{type(network).__name__} has no list of layers: name another network")
    order = _call_order(network)
    depth = max(len(network.get_submodule(path)) for path in lists)
    layers = [tuple(f"{path}.{number}." for path in lists) for number in range(depth)]
    last_call = max(order.get(path[:-1], 0) for path in layers[-1])
    stages: dict[str, list[str]] = {name: [] for name in ("embeddings", *(f"layer{n}" for n in range(depth)))}
    for name, _ in network.named_parameters():
        number = next((n for n, prefixes in enumerate(layers) if name.startswith(prefixes)), None)
        if number is None and order.get(name.rpartition(".")[0], 0) > last_call:
            number = depth - 1
        stages["embeddings" if number is None else f"layer{number}"].append(name)
    return stages


def require_context(network: Any, pooling: str) -> None:
    """Raise UserError for `pooling="cls"` if the network's first token attends to no other token."""
    if pooling != "cls":
        return
    inputs = example_texts(network.config)
    swapped = {**inputs, "input_ids": inputs["input_ids"].clone()}
    swapped["input_ids"][:, 1:3] = swapped["input_ids"][:, 1:3].flip(1)
    with torch.no_grad():
        first, second = (network.eval()(**texts).last_hidden_state[:, 0] for texts in (inputs, swapped))
    if torch.equal(first, second):
        raise UserError(
            f"backbone.pooling=cls, but in a {network.config.model_type} the first token sees none of the others: "
            f"type backbone.pooling=last or mean"
        )


def example_texts(config: Any, device: torch.device | str = "cpu", typed: bool = False) -> dict[str, Tensor]:
    """Inputs of two texts of 5 and 3 tokens, each (2, 5): ids, mask and, if `typed`, the token types of pairs."""
    pad = getattr(config, "pad_token_id", None) or 0
    ids = torch.tensor([i for i in range(min(12, config.vocab_size)) if i != pad]).repeat(10)[:10].reshape(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs = {"input_ids": torch.where(mask == 1, ids, pad).to(device), "attention_mask": mask.to(device)}
    types = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]])
    return {**inputs, **({"token_type_ids": types.to(device)} if typed else {})}


def _layer_lists(network: nn.Module) -> Sequence[str]:
    """Paths of the module list with most parameters, and of lists beside it of the same length (XLM has four)."""
    sizes = {
        path: sum(parameter.numel() for parameter in module.parameters())
        for path, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    if not sizes:
        return []
    largest = max(sizes, key=lambda path: sizes[path])  # the first of equals: the outer one
    length, parent = len(network.get_submodule(largest)), largest.rpartition(".")[0]  # type: ignore[arg-type]
    siblings = [path for path in sizes if path.rpartition(".")[0] == parent]
    return [path for path in siblings if len(network.get_submodule(path)) == length]  # type: ignore[arg-type]


def _call_order(network: Any) -> dict[str, int]:
    """When each module was first called, by path: a number that grows from input to output."""
    order: dict[str, int] = {}

    def note(path: str) -> None:  # a hook that returns something would replace the module's inputs by it
        order.setdefault(path, len(order) + 1)

    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: note(path)) for path, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network.eval()(**example_texts(network.config))
    finally:
        for hook in hooks:
            hook.remove()
    return order
