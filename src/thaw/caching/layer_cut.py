"""Cuts of text networks: layers in front of the cut are skipped in the library's own forward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thaw.caching.halves import Cut
from thaw.models.layers import example_texts
from thaw.models.network import Network
from thaw.types import TokenSpec, TokenStates


def text_cuts(network: Network, spec: TokenSpec, start: int) -> Iterator[Cut]:
    """Cuts in front of stages `start`, `start` - 1 ... 1 that agree with the network."""
    names = list(network.stages)
    device, typed = next(network.parameters()).device, "token_type_ids" in spec.inputs
    inputs = example_texts(network.backbone.config, device, typed)
    expected = network.features(inputs)
    for number in range(start, 0, -1):
        layers = [_layer(network, name) for name in names[1 : number + 1]]
        halves = _LayerCut(network, layers)
        tokens = halves.prefix(inputs)
        if tokens.states.shape[:2] != tokens.mask.shape:  # the network pads texts itself, as Longformer does
            continue
        states = tokens.states * tokens.mask.unsqueeze(2)  # as the cache returns them: zeros at padding
        if torch.equal(halves.suffix(tokens._replace(states=states)), expected):
            yield Cut(number, halves.prefix, halves.suffix, (tokens.states.shape[2],), tokens.states.dtype)


def _layer(network: Network, stage: str) -> nn.Module:
    """The first module of a stage; if that is a module list, which is never called itself, its only entry."""
    module = network.get_submodule(network.stages[stage].modules[0])
    return module[0] if isinstance(module, nn.ModuleList) else module


class _ReachedError(Exception):
    """Ends a forward pass early; carries the states (B, T, D) that a layer was called with."""

    def __init__(self, states: Tensor):
        self.states = states


class _LayerCut:
    """Cuts a text network in front of the last of `layers`; the others run before it."""

    def __init__(self, network: Network, layers: Sequence[nn.Module]):
        self.network, self.skipped, self.entered = network, layers[:-1], layers[-1]
        self.gives_tuple: dict[nn.Module, bool] = {}

    def prefix(self, inputs: dict[str, Tensor]) -> TokenStates:
        """States (B, T, D) that enter the last of `layers`, and the mask. Raises ValueError if it is never called."""

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
        """Features (B, D). Ids and types do not matter: code around the layers uses the mask alone."""
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
        """Make the skipped layers return their input, until the context ends."""
        own_forwards = [vars(layer).get("forward") for layer in self.skipped]  # set by another tool, or None
        for layer in self.skipped:
            layer.forward = self._pass_through(self.gives_tuple[layer])
        try:
            yield
        finally:
            for layer, forward in zip(self.skipped, own_forwards, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward

    def _note_output(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self.gives_tuple[layer] = isinstance(output, tuple)

    @staticmethod
    def _pass_through(gives_tuple: bool) -> Callable[..., Any]:
        def forward(*args: Any, **keywords: Any) -> Any:
            states = args[0] if args else keywords["hidden_states"]
            return (states, None) if gives_tuple else states

        return forward
