"""Load an exported file as its user would, and compare it with the network that it came from."""

import json
import os
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
from thaw.faults import naming_write

TOLERANCE = 1e-4  # largest accepted difference of a prediction, where nothing is rounded


def require_agreement(
    model: InferenceModel, form: str, file: Path, samples: Sequence[Any], least: float | None = None
) -> tuple[float, float]:
    """Compare an exported file with its model on some samples.

    Args:
        model: the model.
        form: the format of the file.
        file: the file.
        samples: images, texts or pairs of texts, see `InputKind`.
        least: share of the samples that must get the same result from a file whose numbers were rounded; None: nothing
            was rounded, so all must, and no prediction may differ by more than TOLERANCE.

    Returns:
        The share of samples that get the same result, and the largest difference, see `Task.agreement`.

    Raises:
        UserError: if the file cannot be loaded, or does not agree.
    """
    inputs = model.inputs.read(samples)
    with torch.inference_mode():
        expected = model(*inputs)
    if form == "onnx":
        predictions = _predictions_of_runner(model, file, samples)
    else:
        predictions = _predictions_of_loading_code(model, form, file, inputs)
    share, difference = model.task.agreement(predictions, expected)
    bounds = f"at most {TOLERANCE:.0e}" if least is None else f"agreement={least:g} is the least share"
    if share < (1 if least is None else least) or not difference <= (TOLERANCE if least is None else 1):
        raise UserError(
            f"the exported {form} does not agree with the network: {share:.1%} of {len(samples)} "
            f"{model.inputs.things} get the same result, {model.task.result} differ by up to {difference:.1e} "
            f"({bounds}). Nothing was written."
        )
    return share, difference


def _predictions_of_loading_code(model: InferenceModel, form: str, file: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    """Predictions (N, C) from the loading code of the model card, run in a process of its own."""
    logits = FORMATS[form].logits
    content: object = inputs if logits is None else model.inputs.to_network(*inputs)
    predictions = "network(*inputs)" if logits is None else model.task.code(logits(model))
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder) / "tensors.pt"
        with naming_write(exchange):
            torch.save(content, exchange)
        lines = [
            *loading_code(model, form, file),
            f"import torch; inputs = torch.load({str(exchange)!r}, weights_only=True)",
            f"torch.save({predictions}.detach(), {str(exchange)!r})",
        ]
        _run_python(["-c", "\n".join(lines)])
        return torch.load(exchange, weights_only=True)


def _predictions_of_runner(model: InferenceModel, file: Path, samples: Sequence[Any]) -> Tensor:
    """Predictions (N, C) from the script that was exported with an ONNX file, run on the samples."""
    printed = _run_python([str(file.with_name("run_onnx.py")), str(file)], json.dumps(samples))
    rows = [json.loads(line)[model.task.result] for line in printed.splitlines()]
    return torch.tensor([[row[name] for name in model.class_names] for row in rows])


def _run_python(arguments: list[str], standard_input: str | None = None) -> str:
    """Run Python and return its standard output. Raises UserError if it fails.

    Class names may be in any script, hence UTF-8. `-B` keeps bytecode files out of the exported folder. transformers
    copies the Python files of a folder before it imports them; that copy is not kept either.
    """
    command = [sys.executable, "-B", "-X", "utf8", *arguments]
    with tempfile.TemporaryDirectory() as copies:
        process = subprocess.run(
            command,
            input=standard_input,
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "HF_MODULES_CACHE": copies},
        )
    if process.returncode:
        last_line = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise UserError(f"the exported file could not be loaded again, and is not kept: {last_line[0]}")
    return process.stdout
