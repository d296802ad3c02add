"""Cut any network into ordered stages, wherever a single tensor passes from one part to the next.

torch.fx follows the network's own forward. Each stage runs the library's modules in the library's order, and its
parameters keep the names that the library gave them.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

from thaw.errors import UserError

log = logging.getLogger(__name__)

GRANULARITIES = ("stages", "blocks")


@dataclass
class Part:
    """Operations that one tensor enters and one tensor leaves."""

    nodes: list[fx.Node]
    """In order."""
    output: fx.Node
    """What leaves."""
    layers: list[str]
    """Paths of the modules in it that have kernels or matrices."""
    name: str = ""


def cut(
    network: nn.Module, input_shape: tuple[int, ...], granularity: str, untraced: Sequence[Callable[..., Any]] = ()
) -> dict[str, nn.Module]:
    """The stages of `network`, input to output; one after the other they compute exactly what it computes.

    `granularity`: "stages", as papers number them (`stem`, `layer1`, `blocks3` ...), or "blocks", each block a stage.
    `input_shape`: (C, H, W). `untraced`: functions that torch.fx is not to look into. A network whose operations depend
    on its input or on its mode becomes a single stage, `body`, with a warning. Raises UserError on other words, and
    where the network does not take such an input.
    """
    if granularity not in GRANULARITIES:
        raise UserError(f"backbone.granularity is {' or '.join(GRANULARITIES)}, not '{granularity}'")
    try:
        graph = _trace(network, tuple(untraced))
        tensors = _tensors(network, graph, input_shape)
        parts = _parts(network, graph, tensors)
        if not any(part.layers for part in parts):
            raise UserError("it has no layers")
    except Exception as error:  # whatever the network's own code raises when it meets a symbol
        _require_input(network, input_shape)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("%s could not be cut: it is a single stage, `body` (%s)", type(network).__name__, reason)
        return {"body": network}
    stages = _merged(_named(_layered(parts), network, granularity))
    if stages[0].name == "stem" and not _is_image(tensors[stages[0].output]):
        stages[0].name = "embedding"
    return {stage.name: _module(network, stage) for stage in stages}


def _require_input(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *input_shape))
    except Exception as error:
        channels, height, width = input_shape
        raise UserError(
            f"{type(network).__name__} does not take images of {height} x {width} pixels and {channels} channels "
            f"({(str(error) or type(error).__name__).splitlines()[0]}): type backbone.image_size_px=<another size>"
        ) from error
    network.train(training)


# 1. Trace. Blocks stay whole; what holds blocks is followed inside.


class _Tracer(fx.Tracer):
    def __init__(self, untraced: tuple[Callable[..., Any], ...]):
        super().__init__(autowrap_functions=untraced)
        self.untraced = untraced

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return not (_holds_blocks(module) and self._traceable(module))

    def _traceable(self, module: nn.Module) -> bool:
        try:
            self.follow(module)
        except Exception:  # as above
            return False
        return True

    def follow(self, module: nn.Module) -> fx.Graph:
        """From the first argument on; the others are what they are by default."""
        _, *others = inspect.signature(module.forward).parameters.values()
        return _Tracer(self.untraced).trace(module, {p.name: p.default for p in others if p.default is not p.empty})


def _trace(network: nn.Module, untraced: tuple[Callable[..., Any], ...]) -> fx.Graph:
    """What runs in evaluation. Raises UserError where other things run in training: a trace would fix one of them."""
    training = network.training
    graphs = {mode: _Tracer(untraced).follow(network.train(mode)) for mode in (True, False)}
    network.train(training)
    if str(graphs[True]) != str(graphs[False]):
        raise UserError("its forward differs between training and evaluation")
    return graphs[False]


def _holds_blocks(module: nn.Module) -> bool:
    """A sequence of several layers, or several blocks of one kind; a block itself holds layers of many kinds."""
    if _is_layer(module):
        return False
    if isinstance(module, nn.Sequential):
        return True
    children = list(module.children())
    lists = [list(child.children()) for child in children if isinstance(child, nn.Sequential | nn.ModuleList)]
    return any(_are_blocks(group) for group in (children, *lists))


def _are_blocks(modules: list[nn.Module]) -> bool:
    kinds = {type(module): module for module in modules if any(True for _ in module.parameters())}
    return len(kinds) == 1 and not any(
        _is_layer(module) or isinstance(module, nn.Sequential | nn.ModuleList) for module in kinds.values()
    )


def _is_layer(module: nn.Module) -> bool:
    """At most one kernel or matrix, as in convolution + norm + activation."""
    return sum(any(p.ndim >= 2 for p in part.parameters(recurse=False)) for part in module.modules()) <= 1


# 2. Cut where a single tensor passes.


class _Recorder(fx.Interpreter):
    """Keeps the tensor that each node gives."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.tensors: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.tensors[n] = value
        return value


def _tensors(network: nn.Module, graph: fx.Graph, input_shape: tuple[int, ...]) -> dict[fx.Node, Tensor]:
    """Of a batch of two, without computing anything: only shapes."""
    training = network.training
    recorder = _Recorder(fx.GraphModule(network.eval(), graph))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        recorder.run(torch.zeros(2, *input_shape))
    network.train(training)
    return recorder.tensors


def _parts(network: nn.Module, graph: fx.Graph, tensors: dict[fx.Node, Tensor]) -> list[Part]:
    """As many as there can be. What does not depend on the input (position tables ...) goes where it is used."""
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    data = _depending_on_input(graph)
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((position.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    # A parameter used in several places keeps all of them in one part; tables that are not trained are copied.
    owners: dict[str, list[int]] = {}
    for node in nodes:
        if node.op == "call_module" and _has_parameters(network.get_submodule(node.target)):
            owners.setdefault(node.target, []).append(position[node])
        elif node.op == "get_attr" and isinstance(attrgetter(node.target)(network), nn.Parameter):
            owners.setdefault(node.target, []).extend(position[user] for user in _data_users(node, data))
    held = [(min(places), max(places)) for places in owners.values() if places]

    parts, current = [], []
    for i, node in enumerate(nodes):
        if node not in data:
            continue
        current.append(node)
        alive = [n for n in nodes[: i + 1] if n in data and last_use[n] > i]
        whole = len(alive) == 1 and alive[0] in tensors and alive[0] in current
        if whole and not any(first <= i < last for first, last in held):
            layers = [n.target for n in current if n.op == "call_module" and _has_kernel(network, n.target)]
            parts.append(Part(current, alive[0], layers))
            current = []
    return parts


def _depending_on_input(graph: fx.Graph) -> set[fx.Node]:
    data = {next(iter(graph.nodes))}  # the first argument
    for node in graph.nodes:
        if any(n in data for n in node.all_input_nodes):
            data.add(node)
    return data


def _data_users(node: fx.Node, data: set[fx.Node]) -> Iterator[fx.Node]:
    for user in node.users:
        if user in data:
            yield user
        else:
            yield from _data_users(user, data)


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _has_kernel(network: nn.Module, path: str) -> bool:
    return any(p.ndim >= 2 for p in network.get_submodule(path).parameters())


# 3. Group and name.


def _layered(parts: list[Part]) -> list[Part]:
    """Norms, activations, pooling and reshaping go with the layer before them; what precedes the first one, with it."""
    first = next(i for i, part in enumerate(parts) if part.layers)
    layered = [_together(parts[: first + 1])]
    for part in parts[first + 1 :]:
        if part.layers:
            layered.append(part)
        else:
            layered[-1] = _together([layered[-1], part])
    return layered


def _together(parts: list[Part]) -> Part:
    nodes = [node for part in parts for node in part.nodes]
    layers = [path for part in parts for path in part.layers]
    return Part(nodes, parts[-1].output, layers, parts[0].name)


def _named(parts: list[Part], network: nn.Module, granularity: str) -> list[Part]:
    blocks = [not all(_is_layer(network.get_submodule(path)) for path in part.layers) for part in parts]
    # Single layers in front of the first block are the stem; a network of single layers (VGG) has none.
    stem = blocks.index(True) if any(blocks) else 0
    for i, part in enumerate(parts):
        path = _common_path(part.layers)
        part.name = "stem" if i < stem else _stage_name(path, whole=granularity == "blocks")
    return parts


def _common_path(paths: list[str]) -> list[str]:
    common = []
    for names in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return common or paths[0].split(".")


def _stage_name(path: list[str], whole: bool) -> str:
    """`features.3` -> features3; `encoder.layers.layer_7` -> layer_7; `layer1.0` -> layer1, or layer1_0 if `whole`."""
    numbered = next((i for i, word in enumerate(path) if any(map(str.isdigit, word))), len(path) - 1)
    words = [path[numbered]]
    if words[0].isdigit() and numbered > 0:
        words = [path[numbered - 1] + words[0]]
    for word in path[numbered + 1 :] if whole else []:
        if word.isdigit() and not words[-1][-1].isdigit():
            words[-1] += word
        else:
            words.append(word)
    return "_".join(words)


def _merged(parts: list[Part]) -> list[Part]:
    """Neighbours of one name become one stage."""
    groups = [_together(list(group)) for _, group in groupby(parts, key=lambda part: part.name)]
    seen = {"head": 1}  # the new head's name
    for group in groups:  # a name that comes again is counted
        seen[group.name] = seen.get(group.name, 0) + 1
        if seen[group.name] > 1:
            group.name += f"_{seen[group.name]}"
    return groups


def _is_image(tensor: Tensor) -> bool:
    """(B, C, H, W), of a square input; transformers have (B, T, D) or (B, H, W, D)."""
    return tensor.ndim == 4 and tensor.shape[2] == tensor.shape[3]


# 4. A module a stage.


def _module(network: nn.Module, part: Part) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inside = set(part.nodes)

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)
        return copies[node]

    data = _depending_on_input(part.output.graph)
    (entering,) = {n for node in part.nodes for n in node.all_input_nodes if n in data and n not in inside}
    copies[entering] = graph.placeholder("x")
    for node in part.nodes:
        copy(node)
    graph.output(copies[part.output])
    return fx.GraphModule(network, graph, class_name=part.name)
