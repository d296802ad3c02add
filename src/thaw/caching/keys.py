"""Digests of all that the output of a stage depends on: its numbers, its settings and its code."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

import thaw
from thaw.storage import digest, tensor_bytes

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "tokenizers", "pillow", "numpy")
CODE = ("models", "caching", "data", "indexing.py", "types.py", "seeds.py")
"""Of thaw: what stands between a sample and the output of a stage."""
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that are hooks, modules and tensors, or the mode."""
OF_LOADING = {"name_or_path", "kernel_config", "_use_kernels", "_weight_conversions", "_is_hf_initialized"}
"""What Hugging Face notes of how a network was made; not what it computes."""


def digest_of_values(values: Any) -> str:
    """Of plain values."""
    return digest(json.dumps(values, sort_keys=True, default=str))


def stage_digest(stage: nn.Module) -> str:
    """Of a module that is in evaluation mode."""
    found = blake2b(digest_size=16)
    for name, module in stage.named_modules():
        found.update(f"{name} {'; '.join(_described(module))}\n".encode())
        found.update(" ".join(classes_digests(module)).encode())
    for name, tensor in (*stage.named_parameters(), *stage.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor_bytes(tensor))
    return found.hexdigest()


def classes_digests(thing: Any) -> list[str]:
    """Of the code of its class and of those above."""
    return [_code_digest(kind) for kind in type(thing).__mro__]


@lru_cache
def environment() -> str:
    """Of thaw's own code and of the libraries."""
    folder = Path(thaw.__file__).parent
    files = [file for name in CODE for file in _python_files(folder / name)]
    return digest(*(file.read_bytes() for file in files), *(f"{name} {_version(name)}" for name in LIBRARIES))


def _python_files(place: Path) -> list[Path]:
    return sorted(place.glob("*.py")) if place.is_dir() else [place]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _described(module: nn.Module) -> Iterator[str]:
    """Its class and its settings. What is printed of a module leaves out some of them: the number of heads, a scale."""
    if isinstance(module, fx.GraphModule):
        yield module.code
        return
    yield f"{type(module).__module__}.{type(module).__qualname__}"
    for name, value in sorted(vars(module).items()):
        if name not in OF_EVERY_MODULE and name not in OF_LOADING:
            yield f"{name}={_plain(value)}"


def _plain(value: Any) -> Any:
    """Of a setting: what is the same in another process."""
    if isinstance(value, (str, int, float, type(None), torch.dtype, torch.Size)):
        return value
    if isinstance(value, Mapping):
        return sorted((str(key), str(_plain(one))) for key, one in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        plain = [str(_plain(one)) for one in value]
        return sorted(plain) if isinstance(value, (set, frozenset)) else plain
    if isinstance(value, Tensor):
        return digest(tensor_bytes(value))
    if isinstance(value, np.ndarray):
        return digest(f"{value.dtype} {value.shape}", value.tobytes())
    if isinstance(value, Enum):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({one.name: getattr(value, one.name) for one in fields(value)})
    if isinstance(value, partial):
        return _plain([value.func, value.args, value.keywords])
    if isinstance(value, (type, Callable)) and not isinstance(value, nn.Module):  # type: ignore[arg-type]
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if hasattr(value, "to_dict"):  # the configuration of a Hugging Face network; `_`: where it came from, its caches
        return _plain({key: one for key, one in value.to_dict().items() if not key.startswith("_")})
    return type(value).__qualname__


@cache
def _code_digest(kind: type) -> str:
    """Of the file that it is written in, or of its methods where there is none, as in a notebook. Torch is known by its
    version."""
    if kind.__module__.partition(".")[0] in ("torch", "builtins"):
        return ""
    try:
        return digest(Path(inspect.getsourcefile(sys.modules[kind.__module__]) or "").read_bytes())
    except (KeyError, TypeError, OSError):
        codes = [getattr(value, "__code__", None) for _, value in sorted(vars(kind).items())]
        return digest(*(part for code in codes if code is not None for part in (code.co_code, _constants(code))))


def _constants(code: CodeType) -> str:
    """And names, without the addresses that functions within are printed with."""
    plain = [one for one in code.co_consts if not isinstance(one, CodeType)]
    within = [one.co_code.hex() + _constants(one) for one in code.co_consts if isinstance(one, CodeType)]
    return f"{code.co_names} {plain} {within}"
