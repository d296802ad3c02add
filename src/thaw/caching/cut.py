"""Cut a network behind its first stages, so that training can begin at activations that were kept.

A cut runs the library's own modules. It is tried on two samples and used only if it gives the library's own features,
to the last bit; where no cut is possible the whole network runs, which costs speed and nothing else.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn

from thaw.models.layers import example_texts
from thaw.models.network import Network
from thaw.models.shapes import example_inputs
from thaw.types import ImageSpec, InputSpec, TokenStates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """The two halves of a backbone: `suffix(prefix(inputs))` equals `network.features(inputs)`."""

    start: int
    """Number of the stage that the activations enter."""
    prefix: Callable[[Any], Any]
    """Raw inputs -> activations: a tensor (B, ...), or `TokenStates`."""
    suffix: Callable[[Any], Tensor]
    """Activations -> features (B, D)."""
    shape: tuple[int, ...]
    """Of the activations of one sample; of texts of one token."""
    dtype: torch.dtype
    """Of the activations, without mixed precision."""


def cut(network: Network, spec: InputSpec, start: int) -> Cut | None:
    """A cut in front of stage number `start`, or as close before it as can be; None if there is none.

    Puts the network's modules back into the modes that it found them in.
    """
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            if isinstance(spec, ImageSpec):
                return next(_image_cuts(network.eval(), spec, start), None)
            return next(_text_cuts(network.eval(), start), None)
    except Exception as error:  # whatever a library's code raises when it meets a symbol, or runs without its layers
        log.debug("%s is not cut: %s", type(network.backbone).__name__, error, exc_info=True)
        return None
    finally:
        for module, training in modes.items():
            module.training = training


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device


# Images: torch.fx follows the network's forward, and a cut is where a single tensor passes.


def _image_cuts(network: Network, spec: ImageSpec, start: int) -> Iterator[Cut]:
    """Cuts in front of stages `start`, `start` - 1 ... 1 that agree with the network."""
    backbone, inputs = network.backbone, example_inputs(spec, _device(network))
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
        prefix = _graph_module(backbone, nodes[: position + 1], placeholder, node)
        suffix = _graph_module(backbone, nodes[position + 1 :], node, last_node)
        if torch.equal(prefix(inputs), activations) and torch.equal(suffix(activations), expected):
            yield Cut(number, prefix, suffix, tuple(activations.shape[1:]), activations.dtype)


class _Tracer(fx.Tracer):
    """Follows what holds several stages; what lies in one stage, or cannot be followed, stays whole."""

    def __init__(self, stages_of: dict[int, frozenset[str]], untraced: tuple[Callable[..., Any], ...]):
        super().__init__(autowrap_functions=untraced)
        self.stages_of, self.untraced = stages_of, untraced

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return len(self.stages_of.get(id(m), ())) <= 1 or not self._can_follow(m)

    def _can_follow(self, module: nn.Module) -> bool:
        try:
            _Tracer(self.stages_of, self.untraced).follow(module)
        except Exception:  # the module's own code meets a symbol
            return False
        return True

    def follow(self, module: nn.Module) -> fx.Graph:
        """Trace from the first argument; the others keep their defaults."""
        _, *others = signature(module.forward).parameters.values()
        return self.trace(module, {p.name: p.default for p in others if p.default is not p.empty})


def _trace(network: Network) -> fx.Graph:
    """The graph of evaluation. Raises ValueError if training runs another one: it would be lost."""
    untraced: tuple[Callable[..., Any], ...] = ()
    if "timm" in sys.modules:
        from timm.models._features_fx import get_notrace_functions

        untraced = tuple(get_notrace_functions())
    stages_of = {id(module): stages for module, stages in network.modules_with_stages()}
    graphs = [_Tracer(stages_of, untraced).follow(network.backbone.train(mode)) for mode in (True, False)]
    if str(graphs[0]) != str(graphs[1]):
        raise ValueError("its forward differs between training and evaluation")
    return graphs[1]


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the tensor that each node gives."""

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
    """By stage number, the last node behind which only earlier stages lie before, and only later ones after."""
    numbers = {stage: number for number, stage in enumerate(network.stages)}
    owner = {name: numbers[stage] for stage, content in network.stages.items() for name in content.parameters}
    from_input = _depending_on_input(graph)
    used = [_stages_used(network.backbone, node, owner) for node in nodes]
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((position.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    later = [inf] * (len(nodes) + 1)
    for i in reversed(range(len(nodes))):
        later[i] = min([later[i + 1], *used[i]])
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


def _depending_on_input(graph: fx.Graph) -> set[fx.Node]:
    dependent = {next(iter(graph.nodes))}  # the first argument
    for node in graph.nodes:
        if any(argument in dependent for argument in node.all_input_nodes):
            dependent.add(node)
    return dependent


def _graph_module(backbone: nn.Module, nodes: Sequence[fx.Node], entering: fx.Node, leaving: Any) -> fx.GraphModule:
    """A module of `nodes`, from the value of `entering` to that of `leaving`; it shares the backbone's modules."""
    graph = fx.Graph()
    copies = {entering: graph.placeholder("x")}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)  # constants, such as position tables, come along
        return copies[node]

    graph.output(copy(leaving))
    return fx.GraphModule(backbone, graph)


# Texts: in the library's forward, layers in front of the cut are skipped for the time of a call.


def _text_cuts(network: Network, start: int) -> Iterator[Cut]:
    """Cuts in front of stages `start`, `start` - 1 ... 1 that agree with the network."""
    names = list(network.stages)
    inputs = example_texts(network.backbone.config, _device(network))
    expected = network.features(inputs)
    for number in range(start, 0, -1):
        layers = [network.get_submodule(network.stages[name].modules[0]) for name in names[1 : number + 1]]
        halves = _LayerCut(network, layers)
        tokens = halves.prefix(inputs)
        if torch.equal(halves.suffix(tokens), expected):
            yield Cut(number, halves.prefix, halves.suffix, (tokens.states.shape[2],), tokens.states.dtype)


class _ReachedError(Exception):
    """Leaves a forward pass with what the layer was called with."""

    def __init__(self, states: Tensor):
        self.states = states


class _LayerCut:
    """Cuts a text network in front of the last of `layers`; the others run before it."""

    def __init__(self, network: Network, layers: Sequence[nn.Module]):
        self.network, self.skipped, self.entered = network, layers[:-1], layers[-1]
        self.gives_tuple: dict[nn.Module, bool] = {}

    def prefix(self, inputs: dict[str, Tensor]) -> TokenStates:
        """States (B, T, D) that the layer is called with, and the mask."""

        def leave(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            raise _ReachedError(args[0] if args else keywords["hidden_states"])

        hooks = [self.entered.register_forward_pre_hook(leave, with_kwargs=True)]
        hooks += [layer.register_forward_hook(self._note_output) for layer in self.skipped]
        try:
            self.network.backbone(**inputs)
        except _ReachedError as reached:
            return TokenStates(reached.states, inputs["attention_mask"])
        finally:
            for hook in hooks:
                hook.remove()
        raise ValueError("the layer was not called")

    def suffix(self, tokens: TokenStates) -> Tensor:
        """Features (B, D). What surrounds the layers depends on the mask alone, so any tokens do."""
        inputs = {"input_ids": torch.zeros_like(tokens.mask), "attention_mask": tokens.mask}

        def enter(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if args:
                return (tokens.states, *args[1:]), keywords
            return args, {**keywords, "hidden_states": tokens.states}

        with self._skipping():
            hook = self.entered.register_forward_pre_hook(enter, with_kwargs=True)
            try:
                return self.network.features(inputs)
            finally:
                hook.remove()

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """The skipped layers give back what they are given."""
        for layer in self.skipped:
            layer.forward = self._pass_through(self.gives_tuple[layer])
        try:
            yield
        finally:
            for layer in self.skipped:
                del layer.forward

    def _note_output(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self.gives_tuple[layer] = isinstance(output, tuple)

    @staticmethod
    def _pass_through(gives_tuple: bool) -> Callable[..., Any]:
        def forward(*args: Any, **keywords: Any) -> Any:
            states = args[0] if args else keywords["hidden_states"]
            return (states, None) if gives_tuple else states

        return forward
