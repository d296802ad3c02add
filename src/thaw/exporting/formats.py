"""What a trained network is written as."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.data import image_file
from thaw.exporting import run_onnx
from thaw.exporting.deployed import Deployed
from thaw.exporting.usage import require_library


def state_dict(deployed: Deployed, folder: Path) -> Path:
    metadata = {key: json.loads(value) for key, value in deployed.metadata().items()}
    file = folder / "model.pt"
    torch.save({"state_dict": deployed.tensors(require_library(deployed.backbone)), **metadata}, file)
    return file


def safetensors(deployed: Deployed, folder: Path) -> Path:
    file = folder / "model.safetensors"
    save_file(deployed.tensors(require_library(deployed.backbone)), file, deployed.metadata())
    return file


def exported_program(deployed: Deployed, folder: Path) -> Path:
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(deployed, (_example(deployed),), dynamic_shapes=(batch,))
    file = folder / "model.pt2"
    torch.export.save(program, file, extra_files=deployed.metadata())
    return file


def onnx(deployed: Deployed, folder: Path) -> Path:
    """And beside it `run_onnx.py`, which needs only onnxruntime, numpy and Pillow."""
    try:
        import onnxruntime  # noqa: F401  # to compare
        import onnxscript  # noqa: F401  # torch's exporter stands on it
    except ImportError as error:
        raise ValueError('format=onnx needs ONNX: type pip install -e ".[export]"') from error
    program = torch.onnx.export(
        deployed,
        (_example(deployed),),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(deployed.metadata())
    file = folder / "model.onnx"
    program.save(file)
    shutil.copy(run_onnx.__file__, folder / "run_onnx.py")
    shutil.copy(image_file.__file__, folder / "image_file.py")
    return file


FORMATS: dict[str, Callable[[Deployed, Path], Path]] = {
    "state_dict": state_dict,
    "safetensors": safetensors,
    "exported_program": exported_program,
    "onnx": onnx,
}


def write(deployed: Deployed, form: str, folder: Path) -> Path:
    """Raises ValueError where the network cannot be written in that form."""
    try:
        return FORMATS[form](deployed, folder)
    except (ValueError, OSError):  # ours, and a full disk
        raise
    except Exception as error:  # whatever torch's exporters raise on a network that they do not understand
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        others = ", ".join(name for name in FORMATS if name != form)
        raise ValueError(f"this network cannot be written as {form} ({reason}): try {others}") from error


def _example(deployed: Deployed) -> Tensor:
    spec = deployed.backbone.input_spec
    return torch.zeros(2, spec.channels, spec.size_px, spec.size_px, dtype=torch.uint8)
