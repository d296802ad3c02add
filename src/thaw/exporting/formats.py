"""What a trained network is written as."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.errors import UserError
from thaw.exporting.deployed import InferenceModel
from thaw.exporting.usage import require_library


def state_dict(deployed: InferenceModel, folder: Path) -> Path:
    metadata = {key: json.loads(value) for key, value in deployed.metadata().items()}
    file = folder / "model.pt"
    torch.save({"state_dict": _tensors(deployed, folder), **metadata}, file)
    return file


def safetensors(deployed: InferenceModel, folder: Path) -> Path:
    file = folder / "model.safetensors"
    save_file(_tensors(deployed, folder), file, deployed.metadata())
    return file


def exported_program(deployed: InferenceModel, folder: Path) -> Path:
    program = torch.export.export(deployed, (*deployed.example().values(),), dynamic_shapes=deployed.dynamic_shapes())
    file = folder / "model.pt2"
    torch.export.save(program, file, extra_files=deployed.metadata())
    return file


def onnx(deployed: InferenceModel, folder: Path) -> Path:
    """And beside it what runs it."""
    try:
        import onnxruntime  # noqa: F401  # to compare
        import onnxscript  # noqa: F401  # torch's exporter stands on it
    except ImportError as error:
        raise UserError('format=onnx needs ONNX: type pip install -e ".[export]"') from error
    program = torch.onnx.export(
        deployed,
        (*deployed.example().values(),),
        input_names=list(deployed.example()),
        output_names=["probabilities"],
        dynamic_shapes=deployed.dynamic_shapes(),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(deployed.metadata())
    file = folder / "model.onnx"
    program.save(file)
    for name, source in deployed.runner().items():
        shutil.copy(source, folder / name)
    return file


FORMATS: dict[str, Callable[[InferenceModel, Path], Path]] = {
    "state_dict": state_dict,
    "safetensors": safetensors,
    "exported_program": exported_program,
    "onnx": onnx,
}


def write(deployed: InferenceModel, form: str, folder: Path) -> Path:
    """Raises UserError where the network cannot be written in that form."""
    for name, text in deployed.beside().items():
        (folder / name).write_text(text, encoding="utf-8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch's exporters say of their own code
            return FORMATS[form](deployed, folder)
    except (ValueError, OSError):  # ours, and a full disk
        raise
    except Exception as error:  # whatever torch's exporters raise on a network that they do not understand
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        others = ", ".join(name for name in FORMATS if name != form)
        raise UserError(f"this network cannot be written as {form} ({reason}): try {others}") from error


def _tensors(deployed: InferenceModel, folder: Path) -> dict[str, Tensor]:
    """And beside them the configuration that the library builds their network from, if it does."""
    library, settings = require_library(deployed.backbone), deployed.backbone.settings
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return deployed.tensors(library)
