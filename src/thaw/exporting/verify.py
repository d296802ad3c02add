"""Load an exported file as its user would, and compare it with the network that it came from."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thaw.errors import UserError
from thaw.exporting.formats import FORMATS, loading_code
from thaw.exporting.inference import InferenceModel
from thaw.exporting.rebuild import require_recipe
from thaw.faults import naming_write

TOLERANCE = 1e-4  # largest accepted difference of a probability


def require_agreement(model: InferenceModel, form: str, file: Path, samples: Sequence[Any]) -> float:
    """Compare an exported file with its model on some samples, and return the largest difference of a probability.

    Raises:
        UserError: if the file cannot be loaded, or if a sample gets another class or differs by more than TOLERANCE.
    """
    inputs = model.inputs.read(samples)
    with torch.inference_mode():
        expected = model(*inputs)
    if form == "onnx":
        probabilities = _probabilities_of_runner(model, file, samples)
    else:
        probabilities = _probabilities_of_loading_code(model, form, file, inputs)
    difference = (probabilities - expected).abs().max().item()
    agreeing = (probabilities.argmax(1) == expected.argmax(1)).float().mean().item()
    if agreeing < 1 or not difference <= TOLERANCE:
        raise UserError(
            f"the exported {form} does not agree with the network: {agreeing:.1%} of {len(samples)} "
            f"{model.inputs.things} get the same class, probabilities differ by up to {difference:.1e} "
            f"(at most {TOLERANCE:.0e}). Nothing was written."
        )
    return difference


def _probabilities_of_loading_code(model: InferenceModel, form: str, file: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    """Class probabilities (N, C) from the loading code of the model card, run in a process of its own."""
    if FORMATS[form].parameters_only:
        content: object = model.inputs.to_network(*inputs)
        probabilities = f"{require_recipe(model).logits}.softmax(1)"
    else:
        content, probabilities = inputs, "network(*inputs)"
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder) / "tensors.pt"
        with naming_write(exchange):
            torch.save(content, exchange)
        lines = [
            *loading_code(model, form, file),
            f"import torch; inputs = torch.load({str(exchange)!r}, weights_only=True)",
            f"torch.save({probabilities}.detach(), {str(exchange)!r})",
        ]
        _run_python(["-c", "\n".join(lines)])
        return torch.load(exchange, weights_only=True)


def _probabilities_of_runner(model: InferenceModel, file: Path, samples: Sequence[Any]) -> Tensor:
    """Class probabilities (N, C) from the script that was exported with an ONNX file, run on the samples."""
    printed = _run_python([str(file.with_name("run_onnx.py")), str(file)], json.dumps(samples))
    rows = [json.loads(line)["probabilities"] for line in printed.splitlines()]
    return torch.tensor([[row[name] for name in model.class_names] for row in rows])


def _run_python(arguments: list[str], standard_input: str | None = None) -> str:
    """Run Python and return its standard output. Raises UserError if it fails.

    Class names may be in any script, hence UTF-8. `-B` keeps bytecode files out of the exported folder.
    """
    command = [sys.executable, "-B", "-X", "utf8", *arguments]
    process = subprocess.run(command, input=standard_input, capture_output=True, encoding="utf-8")
    if process.returncode:
        last_line = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise UserError(f"the exported file could not be loaded again, and is not kept: {last_line[0]}")
    return process.stdout
