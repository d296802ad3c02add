"""Folders that timm and transformers load by themselves: parameters, class names and preprocessing in their form."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.exporting.images import Images
from thaw.exporting.inference import InferenceModel
from thaw.exporting.rebuild import library_tensors, require_recipe
from thaw.models.library_names import linear_name

CONFIG_FILE = "config.json"
CODE = "pooled_classifier.py"
"""Python in an export to Hugging Face whose network is no class of transformers. It takes seconds to import."""
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""What transformers calls each task."""
TOLERANCE = 1e-5
"""Largest difference of a logit at which a class of transformers is taken to be the same network."""


def save_timm(model: InferenceModel, file: Path) -> None:
    """Write timm's own kind of folder, which transformers takes, too. Raises UserError if timm has no such network."""
    if not _is_of(model, "timm"):
        raise UserError(f"format=timm is for networks of timm (backbone=timm): {_others(model)}")
    _require_linear(model, "timm")
    import timm
    from timm.models import save_for_hf

    tensors, arguments = library_tensors(model), dict(require_recipe(model).arguments)
    network: Any = timm.create_model(**arguments, num_classes=len(model.class_names))
    network.load_state_dict(tensors)
    network.pretrained_cfg = {**network.pretrained_cfg, **_input_settings(model)}
    del arguments["model_name"]
    save_for_hf(network, str(file.parent), {"label_names": model.class_names}, arguments, safe_serialization=True)
    config = json.loads(file.with_name(CONFIG_FILE).read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)  # transformers' wrapper of timm would set it twice
    _write(model, file, config, tensors)


def save_huggingface(model: InferenceModel, file: Path) -> None:
    """Write a folder for transformers' AutoModelForSequenceClassification, or AutoModelForImageClassification.

    Raises:
        UserError: the network is of another library, or its head is no linear layer and no head of transformers.
    """
    if _is_of(model, "timm"):
        return save_timm(model, file)
    if not _is_of(model, "transformers"):
        raise UserError(f"format=huggingface is for networks of Hugging Face and of timm: {_others(model)}")
    settings = {**(model.settings or {}), **class_settings(model)}
    if (classifier := _own_class(model, settings)) is not None:
        return _write(model, file, {**settings, "architectures": [type(classifier).__name__]}, classifier.state_dict())
    linear = _require_linear(model, "huggingface")
    assert model.network.pool is not None
    shutil.copy(Path(__file__).with_name(CODE), file.parent)
    config = {
        "model_type": "pooled_classifier",  # so that nobody loads it as a network with another head
        "architectures": ["PooledClassifier"],
        "auto_map": {
            "AutoConfig": "pooled_classifier.PooledConfig",
            "AutoModelForSequenceClassification": "pooled_classifier.PooledClassifier",
        },
        "encoder": settings,
        "pooling": model.network.pool.pooling,
        **class_settings(model),
    }
    tensors = model.network.state_dict()
    by_name = {name.replace(f"head.{linear}", "head.", 1): tensor for name, tensor in tensors.items()}
    return _write(model, file, config, by_name)


def class_settings(model: InferenceModel) -> dict[str, Any]:
    """Class names, under the keys of Hugging Face."""
    names = dict(enumerate(model.class_names))
    by_name = {name: number for number, name in names.items()}
    return {"id2label": names, "label2id": by_name, "problem_type": PROBLEM_TYPES[model.task.labels.task]}


def loading_lines(model: InferenceModel, file: Path) -> list[str]:
    """Python that loads an export in `file` with transformers."""
    kind = "ImageClassification" if isinstance(model.inputs, Images) else "SequenceClassification"
    trust = ", trust_remote_code=True" if file.with_name(CODE).exists() else ""
    load = f"transformers.AutoModelFor{kind}.from_pretrained({str(file.parent)!r}{trust})"
    return ["import transformers", f"network = {load}"]


def logits_expression(model: InferenceModel) -> str:
    """Python for the logits (B, C) that transformers' network gives."""
    return f"network({'inputs' if isinstance(model.inputs, Images) else '**inputs'}).logits"


def _own_class(model: InferenceModel, settings: dict[str, Any]) -> nn.Module | None:
    """The library's own classifier with the run's parameters, if there is one that computes the same."""
    import transformers

    configuration = transformers.AutoConfig.for_model(**settings)
    try:
        classifier = transformers.AutoModelForSequenceClassification.from_config(
            configuration, dtype=torch.float32, trust_remote_code=False
        )
    except ValueError:  # it has none
        return None
    backbone = model.network.backbone.state_dict()
    tensors = {f"{classifier.base_model_prefix}.{name}": tensor for name, tensor in backbone.items()}
    theirs = [
        name
        for name, part in classifier.named_modules()
        if isinstance(part, nn.Linear) and f"{name}.weight" not in tensors
    ]
    ours = [part for part in model.network.head.modules() if isinstance(part, nn.Linear)]
    for name, layer in zip(theirs, ours, strict=False):
        tensors |= {f"{name}.{key}": tensor for key, tensor in layer.state_dict().items()}
    if _shapes(tensors) != _shapes(classifier.state_dict()) or len(theirs) != len(ours):
        return None
    classifier.load_state_dict(tensors)
    inputs = cast("dict[str, Tensor]", model.inputs.to_network(*model.inputs.example().values()))
    with torch.inference_mode():
        difference = classifier.eval()(**inputs).logits - model.network(inputs)
    return classifier if difference.abs().max() <= TOLERANCE else None


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _input_settings(model: InferenceModel) -> dict[str, Any]:
    """The images that the network takes, under timm's keys."""
    assert isinstance(model.inputs, Images)
    spec = model.inputs.spec
    return {
        "input_size": (spec.channels, spec.size_px, spec.size_px),
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_ratio,
        "crop_mode": "squash" if spec.squash else "center",
    }


def _write(model: InferenceModel, file: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    file.with_name(CONFIG_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, file, {"format": "pt", **model.encoded_metadata})


def _is_of(model: InferenceModel, library: str) -> bool:
    return model.recipe is not None and library in model.recipe.imports


def _require_linear(model: InferenceModel, form: str) -> str:
    """Prefix of the head's linear layer. Raises UserError if the head is anything else."""
    if (linear := linear_name(model.network.head)) is None:
        raise UserError(
            f"format={form} holds networks with one linear layer as their head (head=linear), and this one has "
            f"another: {_others(model)}"
        )
    return linear


def _others(model: InferenceModel) -> str:
    parameters = "" if model.recipe is None else "safetensors or state_dict (parameters), "
    return f"type format={parameters}onnx or exported_program"
