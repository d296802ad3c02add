"""The common result of all libraries (torchvision, timm, Hugging Face ...): a backbone, its stages and its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from thaw.errors import UserError
from thaw.models.pooling import Pool
from thaw.models.stages import Stages
from thaw.types import InputSpec


@dataclass(frozen=True)
class RebuildRecipe:
    """Python that builds the same network without thaw, for whoever loads exported weights."""

    imports: Sequence[str]
    """Modules to import."""
    build: Sequence[str]
    """Lines that make `network`; `{num_classes}`, `{folder}` (of the exported file) and `{head}`, an expression that
    makes the head, are filled in."""
    head: str | None
    """Dotted name of the linear layer that the lines make for the head; None if they use `{head}`, and `network` is a
    thaw.models.network.Network."""
    logits: str = "network(inputs)"
    """Expression for the logits (B, C) of `inputs`; for texts these are `input_ids`, `attention_mask` ..."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the library's builder, but the number of classes, for libraries with a folder format of their own."""


class Adapter(Protocol):
    """Small trained parts inside a backbone, whose own parameters then never train."""

    @property
    def pretrained(self) -> frozenset[str]:
        """Names of the backbone's parameters that never train."""

    def merge(self) -> "Backbone":
        """Fold what was learnt into the pretrained parameters, in place, and return the backbone without adapters."""

    def files(self) -> dict[str, bytes]:
        """Files from which the adapter's own library puts it into the same pretrained network, by name."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head, and the names of its stages."""

    network: nn.Module
    """The library's own module. Images (B, C, H, W) -> features (B, D). With `pool`, it is called with the
    inputs that its `TokenSpec` names, each (B, T), and its result has `last_hidden_state` (B, T, D)."""
    stages: Stages
    """Names of its parameters by stage, input to output."""
    num_features: int
    """D, the width of the features."""
    input_spec: InputSpec
    pool: Pool | None = None
    """Turns hidden states into features; None if `network` returns features."""
    recipe: RebuildRecipe | None = None
    """How to build the network without thaw; None if that is impossible, then only whole programs are exported."""
    settings: Mapping[str, Any] | None = None
    """Plain values that its factory needs to rebuild it, besides its keywords and the input spec; None if none."""
    kind: str | None = None
    """Key of `optimizer.rates` in the configuration; None: `batchnorm` or `other`, as its layers are, or `scratch` if
    the configuration says `weights: none`."""
    adapter: Adapter | None = None
    """What trains in place of its own parameters; None if these do."""


class BackboneFactory(Protocol):
    """What a configuration of a backbone names by `_target_`: any function or class that gives a `Backbone`.

    It is called with the keys of its configuration, and with those of the following that it takes:

    - `weights=None` where the weights come from a run folder afterwards: on resume, in `evaluate`, `predict`, `export`.
      A factory without it loads its pretrained weights for nothing.
    - `texts`: the training texts, for a backbone that learns its vocabulary from them; empty for images.
    - `pairs`: whether the samples are pairs of texts; `texts` then holds both texts of each.
    - `settings` and `input_spec`: what a run folder recorded of `Backbone.settings` and `Backbone.input_spec`.
    """

    def __call__(self, **keywords: Any) -> Backbone:
        """The network without its head, its stages and its inputs. Raises UserError for keywords that do not fit."""


def own_options(options: Mapping[str, Any] | None, instead: Mapping[str, str]) -> dict[str, Any]:
    """The user's `backbone.options`; those in `instead` are set in another way, which it says.

    Raises:
        UserError: they are no mapping, or one of them is set in another way.
    """
    if options is not None and not isinstance(options, Mapping):
        raise UserError(f"backbone.options={options} is no mapping: type backbone.options={{key: value}}")
    for key in (options or {}).keys() & instead.keys():
        raise UserError(f"backbone.options: {key} cannot be set: {instead[key]}")
    return dict(options or {})
