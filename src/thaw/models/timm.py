"""Every network of timm (`pip install -e ".[timm]"`)."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe
from thaw.models.shapes import require_input
from thaw.models.stages import stages_by_matcher
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
    """A timm network: images (B, C, H, W) -> the features (B, D) that timm gives with `num_classes=0`.

    Args:
        name: any of `timm.list_models()`, with or without the tag of its weights.
        weights: "default" (timm's, downloaded once), None or "none" (random), or a file.
        granularity: "stages" (`layer1`) or "blocks" (`layer1_0`), see `stages_by_matcher`.
        image_size_px: None for the size that timm's weights were trained with; `mean` and `std` likewise.
        mean: per channel, for values in 0..1.
        std: per channel, for values in 0..1.
        options: more keywords of `timm.create_model`.

    Raises:
        UserError: the name is unknown, an option does not fit, or weights cannot be loaded or downloaded.
    """
    try:
        import timm as library
    except ImportError as error:
        raise UserError('backbone=timm needs timm: type pip install -e ".[timm]"') from error
    pretrained_cfg = _pretrained_config(library, name)
    options = dict(options or {})
    if image_size_px is not None and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options = {"img_size": image_size_px, **options}
    try:
        network = library.create_model(name, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"backbone.options for {name}: {error}") from error
    if weights == "default":
        load_tensors(network, _download(library, name, pretrained_cfg, options), f"timm's {name}")
    elif weights not in (None, "none"):
        _load_file(network, str(weights))
    spec = _input_spec(library, network, image_size_px, mean, std, options)
    if image_size_px is not None:
        require_input(network, spec)
    stages, num_features = stages_by_matcher(network, granularity), int(cast(Any, network).head_hidden_size)
    return Backbone(network, stages, num_features, spec, recipe=_recipe(name, options, pretrained_cfg))


def _pretrained_config(library: Any, name: str) -> Any:
    """What timm records about its weights of that name. Raises UserError for an unknown name or tag."""
    if not library.is_model(name):
        known = [*library.list_models(), *library.list_pretrained()]
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        raise UserError(f"timm has no network '{name}'. Similar names: {', '.join(close)}")
    try:
        return library.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag behind the dot
        tags = ", ".join(library.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise UserError(f"{error} The tags there are: {tags or 'none'}") from error


def _download(library: Any, name: str, pretrained_cfg: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    if pretrained_cfg is None or not pretrained_cfg.has_weights:
        known = library.list_pretrained(f"{name.split('.')[0].split('_')[0]}*")
        raise UserError(
            f"timm has no weights for {name}: name others of {', '.join(known[:8]) or 'timm.list_pretrained()'}, "
            f"or type backbone.weights=<file>, or backbone.weights=none for random ones"
        )
    try:
        return library.create_model(name, pretrained=True, num_classes=0, **options).state_dict()
    except Exception as error:  # raised by the hub's client, or by a library that it uses
        place = f"https://huggingface.co/{pretrained_cfg.hf_hub_id}" if pretrained_cfg.hf_hub_id else pretrained_cfg.url
        raise UserError(
            f"timm's weights for {name} could not be downloaded "
            f"({(str(error) or type(error).__name__).splitlines()[0]}).\n"
            f"On a machine with internet get model.safetensors of {place} and type backbone.weights=<file>; "
            f"backbone.weights=none starts from random weights."
        ) from error


def _load_file(network: nn.Module, file: str) -> None:
    """Load a file, through timm's own filter for checkpoints: older names, position tables for other image sizes."""
    tensors = without_common_prefix(read_weights(file), network.state_dict())
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    load_tensors(network, tensors if rename is None else rename(dict(tensors), network), file)


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


def _recipe(name: str, options: Mapping[str, Any], pretrained_cfg: Any) -> RebuildRecipe | None:
    head = pretrained_cfg.classifier if pretrained_cfg is not None else None
    if not isinstance(head, str):  # several of them, or none
        return None
    keywords = "".join(f", {key}={value!r}" for key, value in options.items())
    build = [f"network = timm.create_model({name!r}, num_classes={{num_classes}}{keywords})"]
    return RebuildRecipe(["timm"], build, head)
