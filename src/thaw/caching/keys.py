"""Digests of what an output depends on: settings, code and library versions. They make up the keys of the cache."""

import ast
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any
from weakref import ReferenceType

import numpy as np
import torch
from torch import Tensor, fx, nn

from thaw.storage import digest, digest_of_tensors

LIBRARIES = {
    **{name: name for name in ("torch", "torchvision", "timm", "transformers", "tokenizers", "numpy", "lightning")},
    "PIL": "pillow",
}
"""Import name and distribution of the libraries whose code is known by its version."""
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
RANDOM = (torch.Generator, np.random.Generator, Random)
"""Random generators. Their state is no setting: modules in evaluation mode draw no numbers."""
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that hold hooks, submodules, tensors or the mode of a module, but no settings."""
OF_GRAPH_MODULES = frozenset(vars(fx.GraphModule(nn.Module(), fx.Graph()))) | {"_graph"}
"""Attributes of traced modules that their `code` stands for."""
OF_LOADING = {"name_or_path", "kernel_config", "_use_kernels", "_weight_conversions", "_is_hf_initialized"}
"""What Hugging Face notes about the loading of a network; not settings."""


class UndigestibleError(ValueError):
    """A value has no digest, so that nothing that depends on it can be cached."""

    def __init__(self, where: str, value: Any):
        kind = type(value)
        super().__init__(f"{where} is a {kind.__module__}.{kind.__qualname__}, whose value cannot be told from another")


def network_digest(module: nn.Module) -> str:
    """Digest of the classes, settings and code of a module and its submodules.

    It is the same in another process and for a network that is built again. Weights, that is parameters and buffers of
    the state dict, hooks and the mode are not part of it. Raises UndigestibleError.
    """
    describer = _Describer()
    return describer.digest(describer.module(module, "network", weights=False))


def code_digest(*kinds: type | Callable[..., Any]) -> str:
    """Digest of the code of classes and functions.

    It covers the files that they and their base classes are written in and the files of the same project that these
    import, directly or not. Of `LIBRARIES` and the standard library it holds names only. Code without a file, as in a
    notebook, is compared by its bytecode and the global values that it uses. Each file is read once per process.
    Raises UndigestibleError.
    """
    describer = _Describer()
    return describer.digest([describer.value(kind, kind.__qualname__) for kind in kinds])


def values_digest(values: Any) -> str:
    """Digest of plain values and of mappings, sequences and objects of them. Raises UndigestibleError."""
    describer = _Describer()
    return describer.digest(describer.value(values, "values"))


@cache
def environment() -> str:
    """Digest of the versions of `LIBRARIES`."""
    return digest(*(f"{name} {_version(name)}" for name in LIBRARIES.values()))


class _Describer:
    """Describes values as nested lists of strings that are equal in every process, and notes whose code they run."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, str]] = {}
        """By id: a value, which is thereby kept alive, and its description."""
        self.modules: set[str] = set()
        """Names of the Python modules whose source matters."""

    def digest(self, description: Any) -> str:
        files = {file for name in self.modules for file in _project_files(name)}
        return digest(json.dumps(description), *sorted(_file_digest(file) for file in files))

    def value(self, value: Any, where: str) -> str:
        """A short description. `where`: the path of attributes to the value, for errors."""
        if type(value) in PLAIN:
            return f"{type(value).__name__} {value!r}"
        if id(value) not in self.known:
            self.known[id(value)] = value, f"the same as {where}"  # for values that contain themselves
            description = self._describe(value, where)
            self.known[id(value)] = value, digest(json.dumps([type(value).__qualname__, description]))
        return self.known[id(value)][1]

    def module(self, root: nn.Module, where: str, weights: bool) -> list[Any]:
        """Settings of a module and its submodules; parts of it that are met elsewhere are described by their names."""
        for name, part in (*root.named_modules(), *root.named_parameters(), *root.named_buffers()):
            self.known[id(part)] = part, f"{where}.{name}"
        described = [
            [name, *self._settings(module, f"{where}.{name}" if name else where)]
            for name, module in root.named_modules()
        ]
        if weights:
            described.append([digest_of_tensors(root.state_dict())])
        return described

    def _settings(self, module: nn.Module, where: str) -> Iterator[Any]:
        yield self._class(type(module), where)
        hidden = OF_EVERY_MODULE | OF_LOADING
        if isinstance(module, fx.GraphModule):
            hidden = hidden | OF_GRAPH_MODULES
            called = [node.target for node in module.graph.nodes if node.op == "call_function"]
            yield [module.code, self.value(called, f"{where}.graph")]
        yield self._items({name: value for name, value in vars(module).items() if name not in hidden}, where)
        for name in sorted(module._non_persistent_buffers_set):
            if (buffer := module._buffers.get(name)) is not None:
                yield [name, digest_of_tensors(buffer)]

    def _describe(self, value: Any, where: str) -> Any:
        if isinstance(value, nn.Module):
            return self.module(value, where, weights=True)
        if isinstance(value, type):
            return self._class(value, where)
        if isinstance(value, FunctionType):
            return self._function(value, where)
        if isinstance(value, MethodType):
            return [self.value(value.__func__, where), self.value(value.__self__, where)]
        if isinstance(value, (staticmethod, classmethod)):
            return self.value(value.__func__, where)
        if isinstance(value, property):
            return [self.value(accessor, where) for accessor in (value.fget, value.fset)]
        if isinstance(value, CodeType):
            return [value.co_code.hex(), value.co_names, self.value(value.co_consts, where)]
        if isinstance(value, ModuleType):
            self._add_source(value.__name__)
            return value.__name__
        if type(value) in (dict, MappingProxyType):
            return self._items(value, where)
        if type(value) in (list, tuple, torch.Size):
            return [self.value(item, f"{where}[{number}]") for number, item in enumerate(value)]
        if type(value) in (set, frozenset):
            return sorted(self.value(item, where) for item in value)
        if isinstance(value, RANDOM):
            return "random"
        if isinstance(value, ReferenceType):  # recurrent layers of torch refer to their parameters by these
            return self.value(value(), where)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return [str(value.dtype), value.shape, digest(value.tobytes())]
        try:
            if isinstance(value, Tensor):
                return digest_of_tensors(value)
            if _is_hugging_face_config(value):  # names with an underscore: where it was loaded from
                settings = value.to_dict().items()
                return self._items({name: setting for name, setting in settings if not name.startswith("_")}, where)
            reduced = value.__reduce_ex__(2)
        except Exception as error:
            raise UndigestibleError(where, value) from error
        return self._reduced(value, reduced, where)

    def _reduced(self, value: Any, reduced: Any, where: str) -> Any:
        """Any other object as pickle takes it apart: what makes it, from what, and its attributes."""
        if isinstance(reduced, str):  # a global name
            self._add_source(getattr(value, "__module__", None))
            return [str(getattr(value, "__module__", None)), reduced]
        make, arguments, state, *items = (*reduced, None, None, None)[:5]
        states = state if isinstance(state, tuple) else (state,)  # attributes, and those in slots
        return [
            self._class(type(value), where),
            self.value(make, where),
            self.value(tuple(arguments), where),
            [self._items(part, where) if type(part) is dict else self.value(part, where) for part in states],
            [None if iterator is None else self.value(list(iterator), where) for iterator in items],
        ]

    def _items(self, values: Mapping[Any, Any], where: str) -> list[list[str]]:
        return sorted([self.value(key, where), self.value(value, f"{where}.{key}")] for key, value in values.items())

    def _function(self, function: FunctionType, where: str) -> list[Any]:
        described: list[Any] = [f"{function.__module__}.{function.__qualname__}"]
        if _is_library(function.__module__) and "<locals>" not in function.__qualname__:
            return described
        values: list[Any] = [function.__defaults__, function.__kwdefaults__, inspect.getclosurevars(function).nonlocals]
        if not self._add_source(function.__module__):
            names = sorted(_global_names(function.__code__) & function.__globals__.keys())
            values += [function.__code__, {name: function.__globals__[name] for name in names}]
        return described + [self.value(value, f"{where}.{function.__name__}") for value in values]

    def _class(self, kind: type, where: str) -> list[Any]:
        described: list[Any] = []
        for base in kind.__mro__:
            described.append(f"{base.__module__}.{base.__qualname__}")
            if not self._add_source(base.__module__):
                members = {
                    name: member
                    for name, member in vars(base).items()
                    if isinstance(member, FunctionType) or not name.startswith(("__", "_abc_"))
                }
                described.append(self._items(members, f"{where}.{base.__name__}"))
        return described

    def _add_source(self, module_name: str | None) -> bool:
        """Note a Python module; returns False if the code has no file."""
        if _is_library(module_name):
            return True
        assert module_name is not None
        self.modules.add(module_name)
        return _file_of(module_name) is not None


def _is_hugging_face_config(value: Any) -> bool:
    of_transformers = any(kind.__module__.startswith("transformers.") for kind in type(value).__mro__)
    return of_transformers and hasattr(value, "to_dict")


def _is_library(module_name: str | None) -> bool:
    package = (module_name or "builtins").partition(".")[0]
    return package in LIBRARIES or (package in sys.stdlib_module_names and package != "__main__")


def _file_of(module_name: str) -> Path | None:
    file = Path(getattr(sys.modules.get(module_name), "__file__", None) or "")
    return file if file.is_file() else None


@cache
def _project_files(module_name: str) -> frozenset[Path]:
    """The file of a module, and the files that it imports, directly or not, from the folder its package lies in."""
    file = _file_of(module_name)
    if file is None:
        return frozenset()
    name = getattr(sys.modules[module_name].__spec__, "name", module_name)
    depth = name.count(".") + (file.stem == "__init__")
    root, package = file.parents[depth], name.partition(".")[0]
    is_installed = root.name in ("site-packages", "dist-packages")  # where other packages are no part of the project
    files, pending = set(), [file]
    while pending:
        file = pending.pop()
        files.add(file)
        for parts in _imports(file, root):
            if parts[0] == package or not is_installed:
                place = root.joinpath(*parts)
                found = {place.with_name(f"{place.name}.py"), place / "__init__.py"} - files
                pending += [file for file in found if file.is_file()]
    return frozenset(files)


def _imports(file: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """Names of what a file imports, but for what it needs for types only; possibly names of functions, too."""
    if file.suffix != ".py":
        return
    pending: list[ast.AST] = [ast.parse(file.read_bytes())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parts[: -node.level] if node.level else ()
            package += tuple(node.module.split(".")) if node.module else ()
            yield package
            yield from ((*package, alias.name) for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            pending += ast.iter_child_nodes(node)


@cache
def _file_digest(file: Path) -> str:
    return digest(file.read_bytes())


def _global_names(code: CodeType) -> set[str]:
    within = (_global_names(value) for value in code.co_consts if isinstance(value, CodeType))
    return set(code.co_names).union(*within)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
