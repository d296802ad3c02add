"""The file formats of exports: how each is written, and how its user loads it."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from thaw.errors import UserError
from thaw.exporting import run_onnx
from thaw.exporting.inference import InferenceModel
from thaw.exporting.rebuild import building_code, library_tensors
from thaw.faults import naming_write


@dataclass(frozen=True)
class Format:
    """One way to write a network to a file.

    Attributes:
        file: Name of the file.
        save: Writes the file, and what it needs beside it.
        read: Python expression that reads `{file}`: parameters by name, or the whole network.
        parameters_only: Whether the network must be built before the file can be loaded into it.
    """

    file: str
    save: Callable[[InferenceModel, Path], None]
    read: str
    parameters_only: bool = False


def write(model: InferenceModel, form: str, folder: Path) -> Path:
    """Write a model into `folder` in the format `form`, a key of `FORMATS`, and return the file.

    Raises:
        UserError: if the network cannot be written in that format.
    """
    file = folder / FORMATS[form].file
    try:
        with naming_write(file), warnings.catch_warnings():
            for name, text in model.inputs.text_files.items():
                (folder / name).write_text(text, encoding="utf-8")
            warnings.simplefilter("ignore")  # torch's exporters warn about their own code
            FORMATS[form].save(model, file)
    except (UserError, OSError):  # a missing package or recipe, a full disk
        raise
    except Exception as error:  # torch's exporters raise anything on a network that they do not understand
        cause = error.__cause__ or error  # torch.onnx says in colours which of its own steps failed
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        others = ", ".join(name for name in FORMATS if name != form)
        raise UserError(f"this network cannot be written as {form} ({reason}): try {others}") from error
    return file


def loading_code(model: InferenceModel, form: str, file: Path) -> list[str]:
    """Lines of Python that load an exported file as `network`, as the model card shows them.

    The network returns class probabilities; with `parameters_only` formats, see `RebuildRecipe.logits` instead.
    """
    read = FORMATS[form].read.format(file=repr(str(file)))
    module = read.partition("(")[0].rpartition(".")[0]
    if not FORMATS[form].parameters_only:
        return [f"import {module}", f"network = {read}"]
    imports, build = building_code(model, str(file.parent))
    modules = dict.fromkeys([module, *imports])
    return [f"import {', '.join(modules)}", *build, f"network.eval().load_state_dict({read})"]


def _save_state_dict(model: InferenceModel, file: Path) -> None:
    torch.save({"state_dict": _parameters(model, file), **model.metadata}, file)


def _save_safetensors(model: InferenceModel, file: Path) -> None:
    # transformers 4 loads only files that name their framework.
    save_file(_parameters(model, file), file, {"format": "pt", **_encoded_metadata(model)})


def _save_exported_program(model: InferenceModel, file: Path) -> None:
    example = model.inputs.example()
    program = torch.export.export(model, tuple(example.values()), dynamic_shapes=_dynamic_shapes(model))
    content = BytesIO()  # where the disk is full, torch's own writer ends the process
    torch.export.save(program, content, extra_files=_encoded_metadata(model))
    file.write_bytes(content.getbuffer())


def _save_onnx(model: InferenceModel, file: Path) -> None:
    try:
        import onnxruntime  # noqa: F401  # runs the file, to compare it
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError('format=onnx needs ONNX: type pip install -e ".[export]"') from error
    example = model.inputs.example()
    program = torch.onnx.export(
        model,
        tuple(example.values()),
        input_names=list(example),
        output_names=["probabilities"],
        dynamic_shapes=_dynamic_shapes(model),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(_encoded_metadata(model))
    program.save(file)
    for source in (Path(run_onnx.__file__), *model.inputs.runner_files):
        shutil.copy(source, file.parent)


FORMATS = {
    "state_dict": Format("model.pt", _save_state_dict, 'torch.load({file}, weights_only=True)["state_dict"]', True),
    "safetensors": Format("model.safetensors", _save_safetensors, "safetensors.torch.load_file({file})", True),
    "exported_program": Format("model.pt2", _save_exported_program, "torch.export.load({file}).module()"),
    "onnx": Format("model.onnx", _save_onnx, "onnxruntime.InferenceSession({file})"),
}


def _parameters(model: InferenceModel, file: Path) -> dict[str, Tensor]:
    """Tensors by their library's names. Writes config.json beside `file` if the library builds networks from one."""
    tensors = library_tensors(model)
    if model.settings is not None:
        # Under the keys of Hugging Face, in place of the classes that the pretrained network had.
        names = dict(enumerate(model.class_names))
        settings = {**model.settings, "id2label": names, "label2id": {name: i for i, name in names.items()}}
        file.with_name("config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return tensors


def _encoded_metadata(model: InferenceModel) -> dict[str, str]:
    return {key: json.dumps(value, ensure_ascii=False) for key, value in model.metadata.items()}


def _dynamic_shapes(model: InferenceModel) -> tuple[tuple[dict[int, torch.export.Dim], ...]]:
    """Dimensions that may vary, as torch's exporters take them for the one parameter `*inputs` of the model."""
    dimensions = model.inputs.varying_dimensions()
    return (tuple(dimensions for _ in model.inputs.example()),)
