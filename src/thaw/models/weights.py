"""Reads weights from files, without running anything in them, and loads them into networks by name."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.manifest import replacing

log = logging.getLogger(__name__)

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema", "module")
"""Keys under which training scripts store the tensors by name; the first one that exists is used."""
NETWORK = "network."
"""Prefix of the network's names in checkpoints of thaw."""
WRAPPERS = ("module.", "_orig_mod.", NETWORK)
"""Prefixes of names that DataParallel, torch.compile and thaw's checkpoints add."""

DEFAULT, RANDOM = ("default", "pretrained", "true"), ("none", "null", "false", "random")
"""What people call the library's own weights, and random ones, in any case of letters."""
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".th", ".tar")

IN_FOLDERS = ("model.safetensors", "model.pt", "pytorch_model.bin", "model.onnx", "model.pt2")
"""Files of weights in folders that libraries and exports write; the first one that exists is used."""
PROGRAMS = {".onnx": "an ONNX file", ".pt2": "an exported program"}
"""Files that hold a network, and no tensors by the names of its library."""

COUNTERS = "num_batches_tracked"
"""Counters of BatchNorm: old files lack them, and nothing depends on them."""


@dataclass(frozen=True)
class LoadReport:
    """Result of loading tensors into a network by name.

    Attributes:
        source: file or library that the tensors came from.
        matched: names that were loaded.
        missing: names of the network that the source lacks, or has in another shape; left as they were.
        surplus: names of the source that the network lacks, or has in another shape; not used.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.matched)} tensors matched"
        for kind, names in (("missing", self.missing), ("surplus", self.surplus)):
            text += f", {len(names)} {kind}" + (f" ({', '.join(names)})" if names else "")
        return text


def weights_choice(typed: Any) -> str | None:
    """What `backbone.weights` asks for: "default", None for random ones, or the name or file that was typed."""
    word = str(typed).lower()
    return None if word in RANDOM else "default" if word in DEFAULT else str(typed)


def is_file_name(choice: str) -> bool:
    """Whether a name of weights stands for a file, also one that does not exist."""
    path = Path(choice)
    return path.exists() or path.suffix in SUFFIXES or (len(path.parts) > 1 and ":" not in choice)


def load_weights(network: nn.Module, file: str | Path, optional: str | None = None) -> LoadReport:
    """Load a file into `network`, see `load_tensors`."""
    return load_tensors(network, read_weights(file), str(file), optional)


def load_tensors(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str, optional: str | None = None
) -> LoadReport:
    """Copy `tensors` into `network` by name, and log the report.

    Args:
        network: the network to fill.
        tensors: tensors by name, see `without_prefix`.
        source: where the tensors came from, for messages.
        optional: prefix of names that may be missing or of another shape, such as `head.` for other classes.

    Raises:
        UserError: other tensors are missing or of another shape, so the source belongs to another network.
    """
    own = network.state_dict()
    tensors = without_prefix(tensors, own)
    matched = {name: value for name, value in tensors.items() if name in own and value.shape == own[name].shape}
    report = LoadReport(
        source,
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in matched),
        surplus=tuple(name for name in tensors if name not in matched),
    )
    if not all(name.endswith(COUNTERS) or (optional and name.startswith(optional)) for name in report.missing):
        raise UserError(
            f"{source} is of another network: {len(matched)} of {len(own)} tensors match.\n"
            f"missing in it: {_list_shapes(report.missing, own)}\n"
            f"surplus in it: {_list_shapes(report.surplus, tensors)}\n"
            f"Choose the backbone that it was saved from (backbone=...), or another file."
        )
    fill(network, matched)
    log.info("%s", report)
    return report


def fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of the network's own names and shapes into it; all others stay."""
    own = network.state_dict()  # with the versions that some libraries store beside their tensors
    own.update(tensors)
    network.load_state_dict(own)


def require_network(network: nn.Module, file: Path) -> None:
    """Raise UserError unless `file` holds exactly the tensors of `network`."""
    own = network.state_dict()
    weights = read_weights(file)
    differing = [name for name in {**own, **weights} if _shape(own, name) != _shape(weights, name)]
    if differing:
        shown = [f"{name} {_shape(weights, name)} instead of {_shape(own, name)}" for name in differing[:8]]
        raise UserError(
            f"{file} is a checkpoint of another network: {', '.join(shown)} ({len(differing)} tensors differ)"
        )


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors, or from .ckpt, .pt, .pth, .bin (also below a key such as `state_dict`).

    Nothing in the file is executed. `source` may be a folder of Hugging Face, of timm, or of an export.

    Raises:
        UserError: the file is missing or damaged, or holds more than tensors and plain values.
    """
    file = file_of_weights(source)
    if file.suffix == ".safetensors":
        return _unwrap(read_safetensors(file))
    content = read_checkpoint(file)
    weights = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(
            f"{file} holds {', '.join(content) or 'nothing'}, and no tensors by name: save model.state_dict()"
        )
    # A checkpoint of thaw may also hold modules that a user's own LightningModule has beside its network.
    network = {name: tensor for name, tensor in weights.items() if name.startswith(NETWORK)}
    return _unwrap(network if network and "class_names" in content else weights)


def file_of_weights(source: str | Path) -> Path:
    """The file with the weights: `source` itself, or one in that folder.

    Raises:
        UserError: the folder has none, or it is a program to run.
    """
    file = Path(source)
    if file.is_dir():
        files = [file / name for name in IN_FOLDERS if (file / name).is_file()]
        if not files:
            raise UserError(f"{file} is a folder without model.safetensors, model.pt or pytorch_model.bin: name a file")
        file = files[0]
    if file.suffix in PROGRAMS:
        raise UserError(
            f"weights cannot be taken from {file}: {PROGRAMS[file.suffix]} is a program, without the names of the "
            f"network's parameters. Name the run that it was exported from (init_from=<run folder>), or what that run "
            f"is exported to with format=safetensors"
        )
    return file


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file. Raises UserError if it is missing or damaged."""
    with _whole_safetensors(file):
        return load_file(require_file(file))


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by name from a safetensors file. Raises UserError if it is missing or damaged."""
    with _whole_safetensors(file), safe_open(require_file(file), framework="pt") as opened:
        names = opened.keys()
        return {name: tuple(opened.get_slice(name).get_shape()) for name in names}


def write_safetensors(file: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write tensors by name, whole or not at all, and take the file into the manifest."""
    written = dict[str, Tensor]()
    for name, value in tensors.items():
        is_tied = any(
            value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() for other in written.values()
        )
        written[name] = value.clone() if is_tied else value.contiguous()  # the format has no tied weights
    with replacing(file) as temporary:
        save_file(written, temporary, metadata)


@contextmanager
def _whole_safetensors(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{file} is no whole safetensors file ({error}): get it again") from error


def read_class_names(file: str | Path) -> list[str] | None:
    """Class names in the order of the outputs; None if the file was not written by thaw."""
    if Path(file).suffix == ".safetensors":
        with _whole_safetensors(Path(file)), safe_open(file, framework="pt") as opened:
            names = (opened.metadata() or {}).get("class_names")
        return None if names is None else json.loads(names)
    return read_checkpoint(file).get("class_names")


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Content of a file written by torch.save. Raises UserError if it holds more than tensors and plain values."""
    try:
        content = torch.load(require_file(Path(file)), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{file} was not loaded: it holds more than tensors and plain values, or is damaged. Loading it could run "
            f"code that somebody else wrote. Ask for the weights as .safetensors."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise UserError(f"{file} is no whole checkpoint ({str(error).splitlines()[0]}): get it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not tensors by name: save model.state_dict()")
    return content


def require_file(file: Path) -> Path:
    """Return `file`. Raises UserError if it does not exist."""
    if not file.is_file():
        raise UserError(
            f"{file} is not a file: name a .safetensors, .ckpt, .pt, .pth or .bin file that exists (backbone.weights "
            f"also takes default and none)"
        )
    return file


def _unwrap(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    while tensors and (prefix := _common_wrapper(tensors)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def without_prefix(tensors: Mapping[str, Tensor], own: Collection[str]) -> Mapping[str, Tensor]:
    """Drop the prefix (`model.`, `bert.`, `backbone.`) with which most of `own` are in `tensors`; other names stay.

    If none is, drop prefixes that all names share: a library may know older names.
    """
    if prefix := prefix_of(own, tensors):
        named = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return {**{name: value for name, value in tensors.items() if not name.startswith(prefix)}, **named}
    while tensors and not any(name in own for name in tensors):
        if not all("." in name for name in tensors) or len({name.partition(".")[0] for name in tensors}) > 1:
            break
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return tensors


def prefix_of(own: Collection[str], names: Collection[str]) -> str:
    """The prefix, up to a dot, with which more than half of `own` are in `names`; empty if there is none."""
    prefixes = Counter(
        name.removesuffix(end)
        for name in names
        for end in (name.split(".", cut)[-1] for cut in range(name.count(".") + 1))
        if end in own
    )
    return next((prefix for prefix, count in prefixes.items() if 2 * count > len(own)), "")


def _common_wrapper(tensors: Mapping[str, Tensor]) -> str | None:
    return next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in tensors)), None)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(tensors[name].shape) if name in tensors else "nothing"


def _list_shapes(names: tuple[str, ...], tensors: Mapping[str, Tensor], most: int = 8) -> str:
    shown = [f"{name} {tuple(tensors[name].shape)}" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
