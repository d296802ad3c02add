"""Every classification network of torchvision."""

import difflib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe, own_options
from thaw.models.shapes import require_input
from thaw.models.stages import stages_by_prefix
from thaw.models.weights import is_file_name, load_tensors, read_weights, weights_choice, without_prefix
from thaw.types import ImageSpec

SET_ELSEWHERE = {
    **dict.fromkeys(("image_size", "input_size"), "type backbone.image_size_px=..."),
    "num_classes": "the data say it",
    "weights": "type backbone.weights=...",
}
"""Keywords of the library's builders that thaw sets, and what to type instead."""
SQUEEZENET_HEAD = "classifier.2"
"""Name of the linear layer in `_recipe`. The library's own head is a convolution and a ReLU, which clips logits."""


def torchvision(
    name: str,
    weights: str | Path | None = "default",
    granularity: str = "stages",
    image_size_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    input_spec: ImageSpec | None = None,
) -> Backbone:
    """A torchvision network: RGB images (B, 3, H, W) -> the features (B, D) of its last linear layer.

    Args:
        name: any of `torchvision.models.list_models()` that classifies.
        weights: "default" (the library's best, downloaded once), one of its names (`IMAGENET1K_V2`), None or "none"
            (random), or a file or folder, see `read_weights`.
        granularity: "stages" (`layer1`) or "blocks" (`layer1_0`), see `stages_by_prefix`.
        image_size_px: None for the size that the library's weights were trained with; `mean` and `std` likewise.
        mean: per channel, for values in 0..1.
        std: per channel, for values in 0..1.
        options: more keywords of the library's builder.
        input_spec: input that a run recorded.

    Raises:
        UserError: the name is unknown, an option does not fit, or weights cannot be loaded or downloaded.
    """
    if name not in models.list_models(module=models):
        close = difflib.get_close_matches(str(name), models.list_models(module=models), n=5, cutoff=0.3)
        raise UserError(f"torchvision has no classification network '{name}'. Similar names: {', '.join(close)}")
    choice = weights_choice(weights)
    entry = _library_weights(name, choice)
    named = entry or models.get_model_weights(name)["DEFAULT"]
    spec = input_spec or _input_spec(named, image_size_px, mean, std)
    architecture, own = _architecture(name, spec), own_options(options, SET_ELSEWHERE)
    options = {**architecture, **own}
    try:
        network = models.get_model(name, **options)
    except (TypeError, ValueError, AssertionError) as error:
        if not own:
            raise _size_error(name, spec, error, named) from error
        raise UserError(f"backbone.options for {name}: {error}") from error
    head, num_features = _take_head_off(network)
    if entry is not None:
        tensors = _fit_position_table(network, _download(name, entry, options))
        load_tensors(network, tensors, f"torchvision's {entry}")
    elif choice is not None:
        tensors = without_prefix(read_weights(choice), network.state_dict())
        load_tensors(network, _fit_position_table(network, tensors), choice)
    if image_size_px is not None:
        require_input(network, spec)
    recipe = _recipe(name, options, head, num_features)
    return Backbone(network, stages_by_prefix(network, granularity), num_features, spec, recipe=recipe)


def _library_weights(name: str, choice: str | None) -> models.WeightsEnum | None:
    """The library's weights of that name, as `IMAGENET1K_V2` or `ResNet50_Weights.IMAGENET1K_V2`; None for others."""
    known = models.get_model_weights(name)
    if choice in (None, "default"):
        return None if choice is None else known["DEFAULT"]
    kind, _, member = choice.rpartition(".")
    if kind in ("", known.__name__) and member in known.__members__:
        return known[member]
    if not is_file_name(choice):
        names = ", ".join(entry.name for entry in known)
        raise UserError(
            f"backbone.weights={choice}: torchvision has {names} for {name}; default, none and a file are taken as well"
        )
    return None


def _size_error(name: str, spec: ImageSpec, error: Exception, default_weights: models.WeightsEnum) -> UserError:
    (size_px,) = default_weights.transforms().crop_size
    return UserError(
        f"{name} does not take images of {spec.size_px} x {spec.size_px} pixels ({str(error).splitlines()[0]}): type "
        f"backbone.image_size_px={size_px} (that of its weights), or another size that fits"
    )


def _input_spec(
    default_weights: models.WeightsEnum, size_px: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> ImageSpec:
    preset = default_weights.transforms()
    (crop_px,), (resize_px,) = preset.crop_size, preset.resize_size
    return ImageSpec(
        size_px=crop_px if size_px is None else size_px,
        channels=3,
        mean=tuple(mean or preset.mean),
        std=tuple(std or preset.std),
        interpolation=preset.interpolation.value,
        crop_ratio=crop_px / resize_px,
    )


def _architecture(name: str, spec: ImageSpec) -> dict[str, Any]:
    """Keywords of the builder that make the network fit the library's weights and the image size."""
    if name in ("googlenet", "inception_v3"):  # the weights take inputs scaled in another way: done in the network
        return {"aux_logits": False, "transform_input": True, "init_weights": False}
    if name.startswith("vit_"):  # its position table has a row for every patch
        return {"image_size": spec.size_px}
    if name.startswith("maxvit"):  # its windows are laid out for one size
        return {"input_size": (spec.size_px, spec.size_px)}
    return {}


def _take_head_off(network: nn.Module) -> tuple[str, int]:
    """Replace the last linear layer by an identity; return its dotted name and the width of its inputs."""
    if isinstance(network, models.SqueezeNet):  # its head is a convolution before the pooling
        num_features = network.classifier[1].in_channels
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
        return SQUEEZENET_HEAD, num_features
    path, last = [(path, part) for path, part in network.named_modules() if isinstance(part, nn.Linear)][-1]
    network.set_submodule(path, nn.Identity())
    return path, last.in_features


def _download(name: str, default_weights: models.WeightsEnum, options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    try:
        default_weights.get_state_dict(progress=True, check_hash=True)  # into the cache
    except (OSError, RuntimeError) as error:  # no internet; a broken download
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(default_weights.url).name
        raise UserError(
            f"torchvision's weights for {name} could not be downloaded ({error}).\n"
            f"On a machine with internet get {default_weights.url} and put it at {file}, or type "
            f"backbone.weights=<file>; backbone.weights=none starts from random weights."
        ) from error
    # The library's builder refuses other image sizes together with its weights: `_fit_position_table` interpolates.
    fixed = {key: value for key, value in options.items() if key not in ("image_size", "input_size", "init_weights")}
    try:
        return models.get_model(name, weights=default_weights, **fixed).state_dict()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"torchvision's weights for {name} do not fit backbone.options={fixed} ({str(error).splitlines()[0]}): "
            f"type backbone.weights=none, or backbone.weights=<file>"
        ) from error


def _fit_position_table(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Interpolate the position table of a vision transformer to the image size."""
    if not isinstance(network, models.VisionTransformer) or "encoder.pos_embedding" not in tensors:
        return tensors
    return interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(tensors))


def _recipe(name: str, options: Mapping[str, Any], head: str, num_features: int) -> RebuildRecipe:
    keywords = "".join(f", {key}={value!r}" for key, value in options.items())
    if head == SQUEEZENET_HEAD:
        build = [
            f"network = torchvision.models.get_model({name!r}{keywords})",
            "network.classifier = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), "
            f"torch.nn.Linear({num_features}, {{num_classes}}))",
        ]
    else:
        build = [f"network = torchvision.models.get_model({name!r}, num_classes={{num_classes}}{keywords})"]
    return RebuildRecipe(["torch", "torchvision"], build, head)
