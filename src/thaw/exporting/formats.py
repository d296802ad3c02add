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
from thaw.exporting.library_folders import (
    class_settings,
    loading_lines,
    logits_expression,
    save_huggingface,
    save_timm,
)
from thaw.exporting.lower_precision import AGREEMENT, lower_precision
from thaw.exporting.rebuild import building_code, library_tensors, require_recipe
from thaw.faults import naming_write


@dataclass(frozen=True)
class Format:
    """One way to write a network to a file.

    Attributes:
        file: Name of the file.
        save: Writes the file, and what it needs beside it.
        load: Lines of Python that load the file as `network`.
        logits: Python expression for the logits (B, C) of the network's own `inputs`, where the file holds parameters
            only; None if it holds a program that takes user inputs and gives class probabilities.
    """

    file: str
    save: Callable[[InferenceModel, Path], None]
    load: Callable[[InferenceModel, Path], list[str]]
    logits: Callable[[InferenceModel], str] | None = None


def write(model: InferenceModel, form: str, folder: Path, precision: str = "fp32") -> Path:
    """Write a model into `folder` in the format `form`, a key of `FORMATS`, and return the file.

    `precision`: of ONNX files, see `lower_precision`.

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
            if precision in AGREEMENT:
                lower_precision(file, precision)
    except (UserError, OSError):  # a missing package or recipe, a full disk
        raise
    except Exception as error:  # torch's exporters raise anything on a network that they do not understand
        cause = error.__cause__ or error  # torch.onnx says in colours which of its own steps failed
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        others = ", ".join(name for name in FORMATS if name != form)
        raise UserError(f"this network cannot be written as {form} ({reason}): try {others}") from error
    return file


def loading_code(model: InferenceModel, form: str, file: Path) -> list[str]:
    """Lines of Python that load an exported file as `network`, as the model card shows them. See `Format.logits`."""
    return FORMATS[form].load(model, file)


def _save_state_dict(model: InferenceModel, file: Path) -> None:
    torch.save({"state_dict": _parameters(model, file), **model.metadata}, file)


def _save_safetensors(model: InferenceModel, file: Path) -> None:
    # transformers 4 loads only files that name their framework.
    save_file(_parameters(model, file), file, {"format": "pt", **model.encoded_metadata})


def _save_exported_program(model: InferenceModel, file: Path) -> None:
    example = model.inputs.example()
    program = torch.export.export(model, tuple(example.values()), dynamic_shapes=_dynamic_shapes(model))
    content = BytesIO()  # where the disk is full, torch's own writer ends the process
    torch.export.save(program, content, extra_files=model.encoded_metadata)
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
        output_names=[model.task.result],
        dynamic_shapes=_dynamic_shapes(model),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(model.encoded_metadata)
    program.save(file)
    for source in (Path(run_onnx.__file__), *model.inputs.runner_files):
        shutil.copy(source, file.parent)


def _program(read: str) -> Callable[[InferenceModel, Path], list[str]]:
    """Lines that read a whole network by the expression `read`."""
    return lambda model, file: [f"import {_module(read)}", f"network = {read.format(file=repr(str(file)))}"]


def _parameters_for_built(read: str) -> Callable[[InferenceModel, Path], list[str]]:
    """Lines that build a network and load into it the parameters that the expression `read` gives."""

    def load(model: InferenceModel, file: Path) -> list[str]:
        imports, build = building_code(model, str(file.parent))
        modules = dict.fromkeys([_module(read), *imports])
        parameters = read.format(file=repr(str(file)))
        return [f"import {', '.join(modules)}", *build, f"network.eval().load_state_dict({parameters})"]

    return load


def _module(expression: str) -> str:
    return expression.partition("(")[0].rpartition(".")[0]


def _timm_checkpoint(model: InferenceModel, file: Path) -> list[str]:
    imports, (build,) = building_code(model, str(file.parent))
    return [f"import {', '.join(imports)}", f"{build[:-1]}, checkpoint_path={str(file)!r}).eval()"]


def _logits(model: InferenceModel) -> str:
    return require_recipe(model).logits


FORMATS = {
    "state_dict": Format(
        "model.pt",
        _save_state_dict,
        _parameters_for_built('torch.load({file}, weights_only=True)["state_dict"]'),
        _logits,
    ),
    "safetensors": Format(
        "model.safetensors", _save_safetensors, _parameters_for_built("safetensors.torch.load_file({file})"), _logits
    ),
    "timm": Format("model.safetensors", save_timm, _timm_checkpoint, _logits),
    "huggingface": Format("model.safetensors", save_huggingface, loading_lines, logits_expression),
    "exported_program": Format("model.pt2", _save_exported_program, _program("torch.export.load({file}).module()")),
    "onnx": Format("model.onnx", _save_onnx, _program("onnxruntime.InferenceSession({file})")),
}


def _parameters(model: InferenceModel, file: Path) -> dict[str, Tensor]:
    """Tensors by their library's names. Writes config.json beside `file` if the library builds networks from one."""
    tensors = library_tensors(model)
    if model.settings is not None:
        settings = {**model.settings, **class_settings(model)}  # in place of the pretrained network's classes
        file.with_name("config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return tensors


def _dynamic_shapes(model: InferenceModel) -> tuple[tuple[dict[int, torch.export.Dim], ...]]:
    """Dimensions that may vary, as torch's exporters take them for the one parameter `*inputs` of the model."""
    dimensions = model.inputs.varying_dimensions()
    return (tuple(dimensions for _ in model.inputs.example()),)
