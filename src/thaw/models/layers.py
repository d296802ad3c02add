"""Cut a Hugging Face network of layers into stages that run the library's own code.

What surrounds the layers (embeddings, masks, positions, relative embeddings) stays as the library wrote it: in its
network each layer is replaced by one that notes what it is given, so that one forward pass of what is left gives the
first hidden states and the arguments of every layer. It holds all parameters that are in no layer: the stage
`embeddings`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.pooling import Calls, Pool
from thaw.types import TokenStates

log = logging.getLogger(__name__)

WHOLE = "body"
"""The one stage of a network that cannot be cut."""


class Embeddings(nn.Module):
    """Token ids and mask, both (B, T) -> Hidden."""

    def __init__(self, network: nn.Module, notes: Sequence["Note"]):
        super().__init__()
        self.network = network
        self.notes = (notes,)  # in a tuple: they are modules of the network, not once more of this one

    def forward(self, inputs: dict[str, Tensor]) -> TokenStates:
        states = self.network(**inputs).last_hidden_state  # what came in where the layers begin
        return TokenStates(states, inputs["attention_mask"], tuple(note.take() for note in self.notes[0]))


class Note(nn.Module):
    """Stands where a layer was: gives its input back, and notes all that it is called with."""

    def __init__(self, layer: nn.Module, gives_tuple: bool):
        super().__init__()
        self.layer, self.gives_tuple = (layer,), gives_tuple  # in a tuple: its parameters are another stage's
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def forward(self, *args: Any, **keywords: Any) -> Any:
        states, *others = args if args else [keywords.pop("hidden_states")]
        self.calls.append((tuple(others), keywords))
        return (states, None) if self.gives_tuple else states

    def take(self) -> Calls:
        """The calls since it was last asked: none where the network drops the layer (OPT's layerdrop)."""
        calls, self.calls = self.calls, []
        return tuple(calls)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # some networks ask a layer what kind it is
            return getattr(self.__dict__["layer"][0], name)


class Layer(nn.Module):
    """A layer of the network, called as the network calls it: Hidden -> Hidden."""

    def __init__(self, layer: nn.Module, number: int, embeddings: Embeddings):
        super().__init__()
        self.layer, self.number = layer, number
        self.embeddings = (embeddings,)  # in a tuple: its parameters are another stage's

    def forward(self, hidden: TokenStates) -> TokenStates:
        states, mask, calls = TokenStates(*hidden)
        if calls is None:
            # What surrounds the layers depends on the mask alone: any tokens do.
            calls = self.embeddings[0]({"input_ids": torch.zeros_like(mask), "attention_mask": mask}).calls
            assert calls is not None
        for args, keywords in calls[self.number]:  # several where layers share their parameters
            states = _states(self.layer(states, *args, **keywords))
        return TokenStates(states, mask, calls)


class Whole(nn.Module):
    """A network in one piece: token ids and mask, both (B, T) -> Hidden."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: dict[str, Tensor]) -> TokenStates:
        return TokenStates(self.network(**inputs).last_hidden_state, inputs["attention_mask"])


@dataclass(frozen=True)
class Staged:
    stages: dict[str, nn.Module]
    """`embeddings`, `layer0` ..., `pool`."""
    names: dict[str, str]
    """For each prefix of their tensors' names the one that it has in the network."""


def staged(network: Any, pooling: str) -> Staged:
    """Cuts `network`, which then is without its layers. Each distinct layer is a stage.

    The stages are tried against the network on two short texts: unless they give the same numbers, to the last bit, it
    stays in one piece, with a warning. Raises UserError for a pooling that would see one token only.
    """
    network.eval()
    example = _example(network.config)
    with torch.no_grad():
        expected = network(**example).last_hidden_state
        if pooling == "cls" and _first_sees_itself_only(network, example, expected):
            raise UserError(
                f"backbone.pooling=cls, but in a {network.config.model_type} the first token sees none of the others: "
                f"type backbone.pooling=last or mean"
            )
        seen = _watch(network, example)
        if (layers := _layers(network, seen)) and (found := _cut(network, layers, seen, example, expected, pooling)):
            return found
    log.warning("%s cannot be cut into layers: all of it is one stage, '%s'", type(network).__name__, WHOLE)
    return Staged({WHOLE: Whole(network), "pool": Pool(pooling)}, {f"{WHOLE}.network.": ""})


def _cut(
    network: nn.Module,
    layers: list[str],
    seen: list[tuple[str, Any]],
    example: dict[str, Tensor],
    expected: Tensor,
    pooling: str,
) -> Staged | None:
    """None, and `network` as it was, where its layers hand on more than hidden states."""
    outputs = dict(seen)
    norm = _last_norm(seen, layers[-1], expected)
    taken_out = {path: network.get_submodule(path) for path in [*layers, *([norm] if norm else [])]}
    notes = [Note(taken_out[path], gives_tuple=isinstance(outputs[path], tuple)) for path in layers]
    for path, note in zip(layers, notes, strict=True):
        network.set_submodule(path, note)
    names = {"embeddings.network.": ""}
    if norm:
        network.set_submodule(norm, nn.Identity())
        names["pool.norm."] = f"{norm}."
    embeddings = Embeddings(network, notes)
    stages: dict[str, nn.Module] = {"embeddings": embeddings}
    for number, path in enumerate(layers):
        stages[f"layer{number}"] = Layer(taken_out[path], number, embeddings)
        names[f"layer{number}.layer."] = f"{path}."
    stages["pool"] = Pool(pooling, taken_out[norm] if norm else None)
    try:
        if _agree(stages, example, expected):
            return Staged(stages, names)
    except Exception:  # whatever the library raises where its layers are not what they were
        log.debug("%s was not cut", type(network).__name__, exc_info=True)
    for path, module in taken_out.items():
        network.set_submodule(path, module)
    return None


def _example(config: Any) -> dict[str, Tensor]:
    """Two texts of 5 and 3 tokens."""
    pad = config.pad_token_id or 0
    ids = torch.tensor([i for i in range(min(12, config.vocab_size)) if i != pad])
    ids = ids.repeat(10)[:10].reshape(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return {"input_ids": torch.where(mask == 1, ids, pad), "attention_mask": mask}


def _first_sees_itself_only(network: nn.Module, example: dict[str, Tensor], states: Tensor) -> bool:
    others = {**example, "input_ids": example["input_ids"].clone()}
    others["input_ids"][:, 1:3] = others["input_ids"][:, 1:3].flip(1)
    return torch.equal(network(**others).last_hidden_state[:, 0], states[:, 0])


def _watch(network: nn.Module, example: dict[str, Tensor]) -> list[tuple[str, Any]]:
    """(path, output) of every module, in the order in which they end."""
    seen: list[tuple[str, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, args, output, path=path: seen.append((path, output)))
        for path, module in network.named_modules()
    ]
    network(**example)
    for hook in hooks:
        hook.remove()
    return seen


def _layers(network: nn.Module, seen: list[tuple[str, Any]]) -> list[str]:
    """Paths of the layers, in the order in which they run: the list that holds most of the parameters."""
    lists = {path: module for path, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    size = {path: sum(p.numel() for p in module.parameters()) for path, module in lists.items()}
    place = max(size, key=lambda path: size[path], default=None)  # the first of equals: the outer one
    return list(dict.fromkeys(path for path, _ in seen if path.rpartition(".")[0] == place))


def _last_norm(seen: list[tuple[str, Any]], last_layer: str, expected: Tensor) -> str | None:
    """What the hidden states go through between the last layer and the end."""
    last = max(i for i, (path, _) in enumerate(seen) if path == last_layer)
    for path, output in seen[last + 1 :]:
        if isinstance(output, Tensor) and output.shape == expected.shape and torch.equal(output, expected):
            return path
    return None


def _agree(stages: dict[str, nn.Module], example: dict[str, Tensor], expected: Tensor) -> bool:
    """Whether all of `stages` together, and all but the first, give what the whole network gave."""
    after: list[TokenStates] = []
    x: Any = example
    for name, stage in stages.items():
        if name == "pool":
            break
        x = stage(x)
        after.append(x)
    norm = cast(Pool, stages["pool"]).norm
    entered = TokenStates(after[0].states, example["attention_mask"])
    for stage in list(stages.values())[1:-1]:
        entered = stage(entered)
    return all(torch.equal(norm(hidden.states), expected) for hidden in (after[-1], entered))


def _states(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
