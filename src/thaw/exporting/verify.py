"""Load an exported file as its user would, and compare it with the network that it came from."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thaw.data.image_file import load_image
from thaw.data.transforms import evaluation_transform, normalise
from thaw.exporting.deployed import Deployed
from thaw.exporting.usage import loading_code

TOLERANCE = 1e-4
"""Largest difference of a probability."""


def require_agreement(deployed: Deployed, form: str, file: Path, images: Sequence[Path]) -> float:
    """The largest difference of a probability.

    Raises ValueError, and removes the file, where any image gets another class or differs by more than TOLERANCE.
    """
    transform = evaluation_transform(deployed.backbone.input_spec)
    batch = torch.stack([transform(load_image(image)) for image in images])
    with torch.inference_mode():
        expected = deployed(batch)
        found = RELOADED[form](deployed, file, batch, images)
    difference = (found - expected).abs().max().item()
    agreeing = (found.argmax(1) == expected.argmax(1)).float().mean().item()
    if agreeing < 1 or not difference <= TOLERANCE:
        file.unlink()
        raise ValueError(
            f"the exported {form} does not agree with the network: {agreeing:.1%} of {len(images)} images get the same "
            f"class, probabilities differ by up to {difference:.1e} (at most {TOLERANCE:.0e}). {file} was removed."
        )
    return difference


def _parameters(deployed: Deployed, file: Path, batch: Tensor, images: Sequence[Path]) -> Tensor:
    """By the very lines that the model card gives, in a process of its own."""
    form = "state_dict" if file.suffix == ".pt" else "safetensors"
    inputs = file.with_name("partial_inputs.pt")
    torch.save(normalise(batch, deployed.backbone.input_spec), inputs)
    there = repr(str(inputs))
    use = f"torch.save(network.eval()(torch.load({there}, weights_only=True)).softmax(1).detach(), {there})"
    try:
        _run([sys.executable, "-c", "\n".join(["import torch", *loading_code(deployed, form, file), use])])
        return torch.load(inputs, weights_only=True)
    finally:
        inputs.unlink()


def _exported_program(deployed: Deployed, file: Path, batch: Tensor, images: Sequence[Path]) -> Tensor:
    return torch.export.load(file).module()(batch)


def _onnx(deployed: Deployed, file: Path, batch: Tensor, images: Sequence[Path]) -> Tensor:
    """By the runner that was exported with it, from the image files on."""
    lines = _run([sys.executable, str(file.with_name("run_onnx.py")), str(file), *map(str, images)])
    rows = [json.loads(line)["probabilities"] for line in lines.splitlines()]
    return torch.tensor([[row[name] for name in deployed.class_names] for row in rows])


RELOADED: dict[str, Callable[[Deployed, Path, Tensor, Sequence[Path]], Tensor]] = {
    "state_dict": _parameters,
    "safetensors": _parameters,
    "exported_program": _exported_program,
    "onnx": _onnx,
}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the exported file could not be loaded again: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
