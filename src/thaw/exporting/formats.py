"""What a trained network is written as. Files appear under their name when they are whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.data import image_file
from thaw.exporting import run_onnx
from thaw.exporting.deployed import Deployed
from thaw.exporting.usage import require_library


def state_dict(deployed: Deployed, folder: Path) -> Path:
    metadata = {key: json.loads(value) for key, value in deployed.metadata().items()}
    content = {"state_dict": deployed.tensors(require_library(deployed.backbone)), **metadata}
    return _written(folder / "model.pt", lambda file: torch.save(content, file))


def safetensors(deployed: Deployed, folder: Path) -> Path:
    tensors, metadata = deployed.tensors(require_library(deployed.backbone)), deployed.metadata()
    return _written(folder / "model.safetensors", lambda file: save_file(tensors, file, metadata))


def exported_program(deployed: Deployed, folder: Path) -> Path:
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(deployed, (_example(deployed),), dynamic_shapes=(batch,))
    return _written(
        folder / "model.pt2", lambda file: torch.export.save(program, file, extra_files=deployed.metadata())
    )


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
    file = _written(folder / "model.onnx", program.save)
    shutil.copy(run_onnx.__file__, folder / "run_onnx.py")
    shutil.copy(image_file.__file__, folder / "image_file.py")
    return file


FORMATS: dict[str, Callable[[Deployed, Path], Path]] = {
    "state_dict": state_dict,
    "safetensors": safetensors,
    "exported_program": exported_program,
    "onnx": onnx,
}


def _example(deployed: Deployed) -> Tensor:
    spec = deployed.backbone.input_spec
    return torch.zeros(2, spec.channels, spec.size_px, spec.size_px, dtype=torch.uint8)


def _written(file: Path, write: Callable[[str], Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"partial_{file.name}")  # torch.export.save wants the suffix
    write(str(partial))
    os.replace(partial, file)
    return file
