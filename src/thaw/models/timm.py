"""Every network of timm (`pip install -e ".[timm]"`)."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.cut import cut
from thaw.models.weights import load_tensors, read_weights, without_common_prefix
from thaw.types import ImageSpec


def timm(
    name: str,
    weights: str | Path | None = "default",
    granularity: str = "stages",
    image_size_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Images (B, C, H, W) to the features (B, D) that timm gives with `num_classes=0`.

    `weights`: "default" (timm's, downloaded once), None or "none" (random), or a file. `granularity`: see `cut`.
    `image_size_px`, `mean`, `std`: None for what timm's weights were trained with. `options`: more keywords of
    `timm.create_model`. Raises UserError for an unknown name, OSError where weights cannot be had.
    """
    try:
        import timm as library
        from timm.models._features_fx import get_notrace_functions
    except ImportError as error:
        raise UserError('backbone=timm needs timm: type pip install -e ".[timm]"') from error

    if not library.is_model(name):
        known = [*library.list_models(), *library.list_pretrained()]
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        raise UserError(f"timm has no network '{name}'. Near it: {', '.join(close)}")
    try:
        trained = library.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag behind the dot
        tags = ", ".join(library.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise UserError(f"{error} The tags there are: {tags or 'none'}") from error
    options = dict(options or {})
    if image_size_px is not None and trained is not None and trained.fixed_input_size:
        options = {"img_size": image_size_px, **options}
    try:
        network = library.create_model(name, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"backbone.options for {name}: {error}") from error
    if weights == "default":
        load_tensors(network, _download(library, name, trained, options), f"timm's {name}")
    elif weights not in (None, "none"):
        tensors = without_common_prefix(read_weights(str(weights)), network.state_dict())
        load_tensors(network, _renamed(network, tensors), str(weights))
    spec = _input_spec(library, network, image_size_px, mean, std, options)
    untraced = get_notrace_functions()
    stages = cut(network, (spec.channels, spec.size_px, spec.size_px), granularity, untraced)
    return Backbone(stages, int(cast(Any, network).head_hidden_size), spec, _library(name, options, trained))


def _download(library: Any, name: str, trained: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    if trained is None or not trained.has_weights:
        known = library.list_pretrained(f"{name.split('.')[0].split('_')[0]}*")
        raise UserError(
            f"timm has no weights for {name}: name others of {', '.join(known[:8]) or 'timm.list_pretrained()'}, "
            f"or type backbone.weights=<file>, or backbone.weights=none for random ones"
        )
    try:
        return library.create_model(name, pretrained=True, num_classes=0, **options).state_dict()
    except Exception as error:  # of the hub's client, or of whatever it stands on
        place = f"https://huggingface.co/{trained.hf_hub_id}" if trained.hf_hub_id else trained.url
        raise OSError(
            f"timm's weights for {name} could not be had ({(str(error) or type(error).__name__).splitlines()[0]}).\n"
            f"On a machine with internet get model.safetensors of {place} and type backbone.weights=<file>; "
            f"backbone.weights=none starts from random weights."
        ) from error


def _renamed(network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As timm does with its own downloads: names of an older version, position tables for another image size."""
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return tensors if rename is None else rename(dict(tensors), network)


def _input_spec(
    library: Any,
    network: nn.Module,
    size_px: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    options: Mapping[str, Any],
) -> ImageSpec:
    preset = library.data.resolve_model_data_config(network)
    channels, height, _ = preset["input_size"]
    channels, size = options.get("in_chans", channels), options.get("img_size", height)
    height = size if isinstance(size, int) else size[0]
    if channels == 1:  # as timm sums the weights of the first layer over the colours
        preset["mean"], preset["std"] = ((sum(preset[key]) / len(preset[key]),) for key in ("mean", "std"))
    return ImageSpec(
        size_px=size_px or height,
        channels=channels,
        mean=tuple(mean or preset["mean"]),
        std=tuple(std or preset["std"]),
        interpolation=preset["interpolation"],
        crop_ratio=preset["crop_pct"],
        squash=preset["crop_mode"] == "squash",
    )


def _library(name: str, options: Mapping[str, Any], trained: Any) -> RebuildRecipe | None:
    head = trained.classifier if trained is not None else None
    if not isinstance(head, str):  # several of them, or none
        return None
    keywords = "".join(f", {key}={value!r}" for key, value in options.items())
    build = [f"network = timm.create_model({name!r}, num_classes={{num_classes}}{keywords})"]
    return RebuildRecipe(["timm"], build, head)
