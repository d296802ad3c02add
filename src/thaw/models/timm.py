"""Every network of timm (`pip install -e ".[timm]"`)."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe, own_options
from thaw.models.hub import hub, why_not
from thaw.models.shapes import require_input
from thaw.models.stages import stages_by_matcher
from thaw.models.weights import is_file_name, load_tensors, read_weights, weights_choice, without_prefix
from thaw.types import ImageSpec

HUB = "hf-hub:"
"""Prefix of ids on Hugging Face's hub."""
SET_ELSEWHERE = {
    "num_classes": "the data say it",
    **dict.fromkeys(("pretrained", "checkpoint_path"), "type backbone.weights=..."),
}
"""Keywords of timm.create_model that thaw sets, and what to type instead."""


def timm(
    name: str,
    weights: str | Path | None = "default",
    granularity: str = "stages",
    image_size_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    input_spec: ImageSpec | None = None,
) -> Backbone:
    """A timm network: images (B, C, H, W) -> the features (B, D) that timm gives with `num_classes=0`.

    Args:
        name: any of `timm.list_models()`, with or without the tag of its weights, or `hf-hub:timm/<name>`.
        weights: "default" (timm's, downloaded once), a tag (`a1_in1k`), `hf-hub:<id>`, None or "none" (random), or a
            file or folder, see `read_weights`.
        granularity: "stages" (`layer1`) or "blocks" (`layer1_0`), see `stages_by_matcher`.
        image_size_px: None for the size that timm's weights were trained with; `mean` and `std` likewise.
        mean: per channel, for values in 0..1.
        std: per channel, for values in 0..1.
        options: more keywords of `timm.create_model`.
        input_spec: input that a run recorded.

    Raises:
        UserError: the name is unknown, an option does not fit, or weights cannot be loaded or downloaded.
    """
    try:
        import timm as library
    except ImportError as error:
        raise UserError('backbone=timm needs timm: type pip install -e ".[timm]"') from error
    name, choice = _name_and_weights(library, _without_source(str(name)), weights_choice(weights))
    pretrained_cfg = _pretrained_config(library, name)
    options = own_options(options, SET_ELSEWHERE)
    size_px = image_size_px if input_spec is None else input_spec.size_px
    if size_px is not None and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options = {"img_size": size_px, **options}
    try:
        network = library.create_model(name, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        key = "options" if image_size_px is None else f"image_size_px={image_size_px} or backbone.options"
        raise UserError(f"backbone.{key} for {name}: {error}") from error
    if choice is not None and choice.startswith(HUB):
        overlay = {"hf_hub_id": choice.removeprefix(HUB), "url": "", "file": ""}
        tensors = _download(library, name, pretrained_cfg, {**options, "pretrained_cfg_overlay": overlay})
        load_tensors(network, tensors, choice)
    elif choice == "default":
        load_tensors(network, _download(library, name, pretrained_cfg, options), f"timm's {name}")
    elif choice is not None:
        _load_file(network, choice)
    spec = input_spec or _input_spec(library, network, image_size_px, mean, std, options)
    if image_size_px is not None:
        require_input(network, spec)
    stages, num_features = stages_by_matcher(network, granularity), int(cast(Any, network).head_hidden_size)
    return Backbone(network, stages, num_features, spec, recipe=_recipe(name, options, pretrained_cfg))


def _without_source(name: str) -> str:
    """A name without `hf-hub:` and `timm/`, where timm's own networks are."""
    return name.replace("hf_hub:", HUB).removeprefix(HUB).removeprefix("timm/")


def _name_and_weights(library: Any, name: str, choice: str | None) -> tuple[str, str | None]:
    """The name with the tag that `choice` names, and "default"; other choices stay as they are."""
    architecture = name.partition(".")[0]
    if choice is None or Path(choice).exists():
        return name, choice
    wanted = _without_source(choice)
    tagged = wanted if wanted.startswith(f"{architecture}.") else f"{architecture}.{wanted}"
    if tagged in library.list_pretrained(f"{architecture}.*"):
        return tagged, "default"
    if wanted == architecture:
        return name, "default"
    if choice.replace("hf_hub:", HUB).startswith(HUB):
        return name, HUB + wanted
    if choice != "default" and not is_file_name(choice):
        raise UserError(
            f"backbone.weights={choice}: timm has {_tags(library, architecture)} for {architecture}; default, none, "
            f"hf-hub:<id> and a file are taken as well"
        )
    return name, choice


def _tags(library: Any, architecture: str) -> str:
    return ", ".join(library.list_pretrained(f"{architecture}.*")) or "none"


def _pretrained_config(library: Any, name: str) -> Any:
    """What timm records about its weights of that name. Raises UserError for an unknown name or tag."""
    if not library.is_model(name):
        known = [*library.list_models(), *library.list_pretrained()]
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        raise UserError(f"timm has no network '{name}'. Similar names: {', '.join(close)}")
    try:
        return library.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag behind the dot
        raise UserError(f"{error} The tags there are: {_tags(library, name.partition('.')[0])}") from error


def _download(library: Any, name: str, pretrained_cfg: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    if "pretrained_cfg_overlay" not in options and (pretrained_cfg is None or not pretrained_cfg.has_weights):
        known = library.list_pretrained(f"{name.split('.')[0].split('_')[0]}*")
        raise UserError(
            f"timm has no weights for {name}: name others of {', '.join(known[:8]) or 'timm.list_pretrained()'}, "
            f"or type backbone.weights=<file>, or backbone.weights=none for random ones"
        )
    try:
        with hub():
            return library.create_model(name, pretrained=True, num_classes=0, **options).state_dict()
    except Exception as error:  # raised by the hub's client, or by a library that it uses
        hub_id = options.get("pretrained_cfg_overlay", {}).get("hf_hub_id") or pretrained_cfg.hf_hub_id
        place = f"https://huggingface.co/{hub_id}" if hub_id else pretrained_cfg.url
        raise UserError(
            f"timm's weights for {name} could not be downloaded ({why_not(error)}).\n"
            f"On a machine with internet get model.safetensors of {place} and type backbone.weights=<file>; "
            f"backbone.weights=none starts from random weights."
        ) from error


def _load_file(network: nn.Module, file: str) -> None:
    """Load a file, through timm's own filter for checkpoints: older names, position tables for other image sizes."""
    tensors = without_prefix(read_weights(file), network.state_dict())
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
        size_px=height if size_px is None else size_px,
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
    return RebuildRecipe(["timm"], build, head, arguments={"model_name": name, **options})
