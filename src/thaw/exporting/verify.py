"""Load an exported file as its user would, and compare it with the network that it came from."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thaw.errors import UserError
from thaw.exporting.deployed import InferenceModel
from thaw.exporting.usage import loading_code, require_library

TOLERANCE = 1e-4
"""Largest difference of a probability."""


def require_agreement(deployed: InferenceModel, form: str, file: Path, samples: Sequence[str]) -> float:
    """The largest difference of a probability.

    Raises UserError where the file cannot be loaded, any sample gets another class or differs by more than TOLERANCE.
    """
    if not samples:
        raise UserError("samples is at least 1, not 0: an export that was not compared is not believed")
    inputs = deployed.inputs(samples)
    with torch.inference_mode():
        expected = deployed(*inputs)
        found = RELOADED[form](deployed, file, inputs, samples)
    difference = (found - expected).abs().max().item()
    agreeing = (found.argmax(1) == expected.argmax(1)).float().mean().item()
    if agreeing < 1 or not difference <= TOLERANCE:
        raise UserError(
            f"the exported {form} does not agree with the network: {agreeing:.1%} of {len(samples)} {deployed.things} "
            f"get the same class, probabilities differ by up to {difference:.1e} (at most {TOLERANCE:.0e}). "
            f"Nothing was written."
        )
    return difference


def _in_torch(deployed: InferenceModel, file: Path, inputs: tuple[Tensor, ...], samples: Sequence[str]) -> Tensor:
    """By the very lines that the model card gives, in a process of its own."""
    form = {".pt": "state_dict", ".safetensors": "safetensors", ".pt2": "exported_program"}[file.suffix]
    whole = form == "exported_program"
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "inputs.pt"
        torch.save(inputs if whole else deployed.library_inputs(inputs), there)
        load = f"import torch; inputs = torch.load({str(there)!r}, weights_only=True)"
        found = "network(*inputs)" if whole else f"{require_library(deployed.backbone).logits}.softmax(1)"
        save = f"torch.save({found}.detach(), {str(there)!r})"
        _run(["-c", "\n".join([*loading_code(deployed, form, file), load, save])])
        return torch.load(there, weights_only=True)


def _onnx(deployed: InferenceModel, file: Path, inputs: tuple[Tensor, ...], samples: Sequence[str]) -> Tensor:
    """By the runner that was exported with it, from the samples on."""
    arguments, given = deployed.asked(samples)
    lines = _run([str(file.with_name("run_onnx.py")), str(file), *arguments], given)
    rows = [json.loads(line)["probabilities"] for line in lines.splitlines()]
    return torch.tensor([[row[name] for name in deployed.class_names] for row in rows])


RELOADED: dict[str, Callable[[InferenceModel, Path, tuple[Tensor, ...], Sequence[str]], Tensor]] = {
    "state_dict": _in_torch,
    "safetensors": _in_torch,
    "exported_program": _in_torch,
    "onnx": _onnx,
}


def _run(words: list[str], given: str | None = None) -> str:
    """What Python prints, `given` that input. Class names may be of any script; no bytecode is left beside what is
    given away."""
    command = [sys.executable, "-B", "-X", "utf8", *words]
    done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"the exported file could not be loaded again, and is not kept: {reason[0]}")
    return done.stdout
