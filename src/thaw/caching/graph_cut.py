"""Cuts of image networks: torch.fx traces the forward, and a cut is where later nodes need only a single tensor."""

import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn

from thaw.caching.halves import Cut
from thaw.models.network import Network
from thaw.models.shapes import example_inputs
from thaw.types import ImageSpec


def image_cuts(network: Network, spec: ImageSpec, start: int) -> Iterator[Cut]:
    """Cuts in front of stages `start`, `start` - 1 ... 1 that agree with the network."""
    backbone, inputs = network.backbone, example_inputs(spec, next(network.parameters()).device)
    inputs = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)).to(next(backbone.parameters()))
    expected = backbone(inputs)
    graph = _trace(network)
    recorder = _Recorder(fx.GraphModule(backbone, graph))
    recorder.run(inputs)
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    last_node = graph.output_node().args[0]
    positions = _cut_positions(network, graph, nodes, recorder.tensors)
    for number in range(start, 0, -1):
        if number not in positions:
            continue
        position = positions[number]
        node, placeholder = nodes[position], next(iter(graph.nodes))
        activations = recorder.tensors[node]
        prefix = _graph_module(backbone, placeholder, node)
        suffix = _graph_module(backbone, node, last_node)
        if torch.equal(prefix(inputs), activations) and torch.equal(suffix(activations), expected):
            yield Cut(number, prefix, suffix, tuple(activations.shape[1:]), activations.dtype)


class _Tracer(fx.Tracer):
    """Traces into modules that hold several stages; those inside one stage, or not traceable, stay single nodes."""

    def __init__(self, stages_of: dict[int, frozenset[str]], untraced: tuple[Callable[..., Any], ...]):
        super().__init__(autowrap_functions=untraced)
        self.stages_of, self.untraced = stages_of, untraced

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return len(self.stages_of.get(id(m), ())) <= 1 or not self._can_trace(m)

    def _can_trace(self, module: nn.Module) -> bool:
        try:
            _Tracer(self.stages_of, self.untraced).trace_first_argument(module)
        except Exception:  # the module's own code may raise anything on symbolic values
            return False
        return True

    def trace_first_argument(self, module: nn.Module) -> fx.Graph:
        """The graph of `module.forward` as a function of its first argument; the others keep their defaults."""
        _, *others = signature(module.forward).parameters.values()
        return self.trace(module, {p.name: p.default for p in others if p.default is not p.empty})


def _trace(network: Network) -> fx.Graph:
    """The graph of the backbone's forward in evaluation. Raises ValueError if it is another one in training."""
    untraced: tuple[Callable[..., Any], ...] = ()
    if "timm" in sys.modules:
        from timm.models._features_fx import get_notrace_functions

        untraced = tuple(get_notrace_functions())
    stages_of = {id(module): stages for module, stages in network.modules_with_stages()}
    training, evaluation = (
        _Tracer(stages_of, untraced).trace_first_argument(network.backbone.train(mode)) for mode in (True, False)
    )
    if str(training) != str(evaluation):
        raise ValueError("its forward differs between training and evaluation")
    return evaluation


class _Recorder(fx.Interpreter):
    """Runs a graph and records the tensor that each node returns."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.tensors: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.tensors[n] = value
        return value


def _cut_positions(
    network: Network, graph: fx.Graph, nodes: Sequence[fx.Node], tensors: dict[fx.Node, Tensor]
) -> dict[int, int]:
    """For each stage that the graph can be cut in front of, by number: the position of the last node before the cut.

    Up to that node only earlier stages are used, behind it only this stage and later ones, and a single tensor passes.
    """
    numbers = {stage: number for number, stage in enumerate(network.stages)}
    owner = {name: numbers[stage] for stage, content in network.stages.items() for name in content.parameters}
    from_input = _input_dependent_nodes(graph)
    used = [_stages_used(network.backbone, node, owner) for node in nodes]
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((position.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    later = [inf] * (len(nodes) + 1)
    for i in reversed(range(len(nodes))):
        is_module = nodes[i].op == "call_module"  # a single parameter may be of an earlier stage, like a class token
        later[i] = min([later[i + 1], *(used[i] if is_module else ())])
    cuts, earlier = {}, -1
    for i, node in enumerate(nodes):
        earlier = max([earlier, *used[i]])
        alive = [n for n in nodes[: i + 1] if n in from_input and last_use[n] > i]
        if alive == [node] and node in tensors and later[i + 1] < inf:
            cuts.update(dict.fromkeys(range(earlier + 1, int(later[i + 1]) + 1), i))
    return cuts


def _stages_used(backbone: nn.Module, node: fx.Node, owner: dict[str, int]) -> set[int]:
    """Numbers of the stages whose parameters a node uses."""
    if node.op == "call_module":
        names = [
            f"backbone.{node.target}.{name}" for name, _ in backbone.get_submodule(str(node.target)).named_parameters()
        ]
    else:
        names = [f"backbone.{node.target}"] if node.op == "get_attr" else []
    return {owner[name] for name in names if name in owner}


def _input_dependent_nodes(graph: fx.Graph) -> set[fx.Node]:
    dependent = {next(iter(graph.nodes))}  # the first argument
    for node in graph.nodes:
        if any(argument in dependent for argument in node.all_input_nodes):
            dependent.add(node)
    return dependent


def _graph_module(backbone: nn.Module, entering: fx.Node, leaving: Any) -> fx.GraphModule:
    """A module that takes the value of `entering` and returns that of `leaving`; it shares the backbone's modules."""
    graph = fx.Graph()
    copies = {entering: graph.placeholder("x")}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)  # constants, such as position tables, come along
        return copies[node]

    graph.output(copy(leaving))
    return fx.GraphModule(backbone, graph)
