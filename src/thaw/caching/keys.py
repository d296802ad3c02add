"""Digests of what an output depends on: settings, code and library versions. They make up the keys of the cache."""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ReferenceType

import numpy as np
from torch import Generator, Tensor, fx, nn

from thaw.storage import digest, digest_of_tensors

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "peft",
    "tokenizers",
    "numpy",
    "lightning",
    "PIL",
    "pillow",
)
"""Libraries whose code is known by its version. Pillow is imported as PIL."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))
PARTS: dict[type, tuple[str, ...]] = {
    MethodType: ("__func__", "__self__"),
    CodeType: ("co_code", "co_names", "co_consts"),
    CellType: ("cell_contents",),
    property: ("fget", "fset"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    Generator: (),  # The state of a generator does not matter: modules in evaluation mode draw no numbers.
    np.random.Generator: (),
    Random: (),
}
"""For each type, the attributes that together stand for an object of it."""
NO_SETTINGS = {"_graph", "name_or_path", "kernel_config", "_use_kernels", "_weight_conversions", "_is_hf_initialized"}
"""Attributes of modules that say how they were traced or loaded."""


class UndigestibleError(ValueError):
    """A value has no digest, so nothing that depends on it can be cached."""


def network_digest(module: nn.Module) -> str:
    """Digest of the classes, settings and code of a module and its submodules.

    It is the same in another process and for a network that is built again. It does not cover weights (parameters and
    buffers of the state dict), hooks, and training or evaluation mode. Raises UndigestibleError.
    """
    describer = _Describer()
    unsaved = {id(part._buffers[name]) for part in module.modules() for name in part._non_persistent_buffers_set}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) not in unsaved:
            describer.known[id(tensor)] = tensor, f"the weights {name}"
    return describer.digest(module, "network")


def code_digest(*kinds: type | Callable[..., Any]) -> str:
    """Digest of the code of classes and functions.

    It covers the files that they and their base classes are written in and the files of the same project that these
    import, directly or not. From `LIBRARIES` and the standard library, only names are covered. Code without a file, as
    in a notebook, is covered by its bytecode and the global values that it uses. Each file is read once per process.
    Raises UndigestibleError.
    """
    return _Describer().digest(kinds, "code")


def values_digest(values: Any) -> str:
    """Digest of plain values and of mappings, sequences and objects of them. Raises UndigestibleError."""
    return _Describer().digest(values, "values")


@cache
def environment() -> str:
    """Digest of the versions of `LIBRARIES`."""
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return digest(str(versions))


class _Describer:
    """Describes values as strings that are equal in every process, and notes the source of the code that they run."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, str]] = {}
        """By id: a value, which is thereby kept alive, and its description."""
        self.sources: set[str] = set()
        """Digests of source files."""

    def digest(self, value: Any, path: str) -> str:
        return digest(self.describe(value, path), *sorted(self.sources))

    def describe(self, value: Any, path: str) -> str:
        """A short description. `path`: the attributes that lead to the value, for errors."""
        kind = type(value)
        if kind in PLAIN:
            return f"{kind.__name__} {value!r}"
        if id(value) not in self.known:
            self.known[id(value)] = value, f"the same as {path}"  # for values that contain themselves
            if kind is dict:
                parts = [digest(self.describe(k, path), self.describe(v, f"{path}.{k}")) for k, v in value.items()]
            else:
                values = value if kind in (list, tuple, set, frozenset) else self.parts(value, path)
                parts = [self.describe(part, path) for part in values]
            parts = sorted(parts) if kind in (dict, set, frozenset) else parts
            self.known[id(value)] = value, digest(kind.__qualname__, *parts)
        return self.known[id(value)][1]

    def parts(self, value: Any, path: str) -> list[Any]:
        """Simpler values that together stand for this one."""
        try:
            if isinstance(value, (type, FunctionType, ModuleType)):
                return self.code(value)
            if isinstance(value, nn.Module):  # the attributes of an empty module are hooks and the mode
                empty = fx.GraphModule({}, fx.Graph()) if isinstance(value, fx.GraphModule) else nn.Module()
                settings = {k: v for k, v in vars(value).items() if k not in vars(empty).keys() | NO_SETTINGS}
                return [type(value), settings | value._parameters | value._buffers | value._modules]
            if isinstance(value, Tensor):
                return [digest_of_tensors(value)]
            if isinstance(value, ReferenceType):  # recurrent layers of torch refer to their parameters by these
                return [value()]
            if type(value).__module__.startswith("transformers") and hasattr(value, "to_dict"):
                # A configuration. Names with an underscore say where it was loaded from.
                return [{name: setting for name, setting in value.to_dict().items() if name[:1] != "_"}]
            for kind, names in PARTS.items():
                if isinstance(value, kind):
                    return [getattr(value, name) for name in names]
            # As pickle does it: the name of a global value, or a constructor with its arguments and the state.
            reduced = value.__reduce_ex__(2)
        except Exception as error:
            kind_name = f"{type(value).__module__}.{type(value).__qualname__}"
            raise UndigestibleError(f"{path} holds a {kind_name}, which cannot be compared with another") from error
        if isinstance(reduced, str):
            return [sys.modules.get(value.__module__), reduced]
        return [type(value), *(list(part) if isinstance(part, Iterator) else part for part in reduced)]

    def code(self, value: Any) -> list[Any]:
        """Values that stand for a class, a function or a module: its name, and whatever its source file does not show.

        The digests of its source files are added to `sources`.
        """
        module = value.__name__ if isinstance(value, ModuleType) else value.__module__
        sources = _sources(module or "")
        self.sources |= sources or set()
        parts: list[Any] = [module, getattr(value, "__qualname__", "")]
        if isinstance(value, FunctionType):
            parts += [value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__]
            if sources is None:
                names = _global_names(value.__code__) & value.__globals__.keys()
                parts.append({name: value.__globals__[name] for name in names})
        if isinstance(value, type):
            parts.append(value.__bases__)
            # A local class may use arguments of the function around it.
            if sources is None or "<" in value.__qualname__:
                methods = {name for name, member in vars(value).items() if isinstance(member, FunctionType)}
                hidden = {name for name in vars(value) if name.startswith(("__", "_abc_"))} - methods
                parts.append({name: member for name, member in vars(value).items() if name not in hidden})
        return parts


@cache
def _sources(module_name: str) -> frozenset[str] | None:
    """Digests of the file of a module and of those that it imports, directly or not, from the folder its package is in.

    Imports for types only do not count. Empty for libraries; None if the code has no file, as in a notebook.
    """
    if module_name.partition(".")[0] in {*LIBRARIES, *sys.stdlib_module_names}:
        return frozenset()
    module = sys.modules.get(module_name)
    file = Path(getattr(module, "__file__", None) or "")
    if not file.is_file():
        return None
    name = getattr(getattr(module, "__spec__", None), "name", module_name)  # `__main__` has its real name there
    root = file.parents[name.count(".") + (file.stem == "__init__")]
    # In site-packages, only files of its own package belong to the same project.
    project = str(root / name.partition(".")[0]) if root.name.endswith("-packages") else str(root)
    digests: dict[Path, str] = {}
    pending = [file]
    while pending:
        file = pending.pop()
        if file in digests or not file.is_file() or not str(file).startswith(project):
            continue
        content = file.read_bytes()
        digests[file] = digest(content)
        tree = ast.parse(content if file.suffix == ".py" else "")
        body = [n for n in tree.body if not isinstance(n, ast.If) or "TYPE_CHECKING" not in ast.dump(n.test)]
        for node in ast.walk(ast.Module(body, [])):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                level, package = getattr(node, "level", 0), getattr(node, "module", None) or ""
                folder = (file.parents[level - 1] if level else root).joinpath(*package.split("."))
                for place in (folder, *(folder.joinpath(*alias.name.split(".")) for alias in node.names)):
                    pending += [Path(f"{place}.py"), place / "__init__.py"]
    return frozenset(digests.values())


def _global_names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_global_names(part) for part in code.co_consts if isinstance(part, CodeType)))
