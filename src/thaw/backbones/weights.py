"""Read weights from a file, safely, and put them into a network by name."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

log = logging.getLogger(__name__)

WRAPPERS = ("module.", "network.stages.")
"""Prefixes of names that say who saved a file, not what the tensor is: DataParallel's, and our own checkpoints'."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every name, in the file and in the network."""

    file: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """In the network, not in the file (or there in another shape): left as they were."""
    surplus: tuple[str, ...]
    """In the file, not in the network (or there in another shape): not used."""

    def __str__(self) -> str:
        text = f"{self.file}: {len(self.matched)} tensors matched"
        for kind, names in (("missing", self.missing), ("surplus", self.surplus)):
            text += f", {len(names)} {kind}" + (f" ({', '.join(names)})" if names else "")
        return text


def load_weights(stages: nn.ModuleDict, file: str | Path) -> LoadReport:
    """Copy the tensors of `file` into `stages`, by name, and log the report; a head for other classes is left as it is.

    Raises ValueError where the file does not fill the whole backbone: it is a checkpoint of another network.
    """
    own, weights = stages.state_dict(), read_weights(file)
    matched = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    report = LoadReport(
        Path(file),
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in matched),
        surplus=tuple(name for name in weights if name not in matched),
    )
    if any(not name.startswith("head.") for name in report.missing):
        raise ValueError(
            f"{file} is a checkpoint of another network: {len(matched)} of {len(own)} tensors match.\n"
            f"missing in it: {_some(report.missing, own)}\nsurplus in it: {_some(report.surplus, weights)}\n"
            f"Choose the backbone that it was saved from (backbone=...), or another file."
        )
    stages.load_state_dict(matched, strict=False)
    log.info("%s", report)
    return report


def require_network(stages: nn.ModuleDict, file: Path) -> None:
    """ValueError where `file` does not hold exactly the tensors of `stages`, head included."""
    own = stages.state_dict()
    weights = read_weights(file)
    odd = [name for name in {**own, **weights} if _shape(own, name) != _shape(weights, name)]
    if odd:
        shown = [f"{name} {_shape(weights, name)} instead of {_shape(own, name)}" for name in odd[:8]]
        raise ValueError(f"{file} is a checkpoint of another network: {', '.join(shown)} ({len(odd)} tensors differ)")


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors, or from .ckpt, .pt, .pth (also inside a `state_dict` key).

    Nothing in a file is ever executed: what holds more than tensors and plain values is refused with a ValueError.
    """
    file = Path(file)
    if file.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(require_file(file)))
        except SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file ({error}): get it again") from error
    content = read_checkpoint(file)
    return _unwrapped(content.get("state_dict", content))


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """A file written by torch.save, plain values and tensors only (`weights_only=True`)."""
    try:
        content = torch.load(require_file(Path(file)), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{file} was not loaded: it holds more than tensors and plain values, or is damaged. Loading it could run "
            f"code that somebody else wrote. Ask for the weights as .safetensors."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{file} is no whole checkpoint ({str(error).splitlines()[0]}): get it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not tensors by name: save model.state_dict()")
    return content


def require_file(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file: name a .safetensors, .ckpt, .pt or .pth file that exists")
    return file


def _unwrapped(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(tensors[name].shape) if name in tensors else "nothing"


def _some(names: tuple[str, ...], tensors: Mapping[str, Tensor], most: int = 8) -> str:
    shown = [f"{name} {tuple(tensors[name].shape)}" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
