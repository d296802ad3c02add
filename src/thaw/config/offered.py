"""What a recorded configuration may name: a run folder may be somebody else's, and whatever it names would be called.

Without `trust=true` a `_target_` of a run folder is called only if

1. a YAML file of thaw's conf/ or of the user's own names it, in the same group and as deep in it, with the same other
   keys of Hydra (`_partial_` ...). The user's own are in conf/ of the working folder (or where its
   `pyproject.toml` says), which Python code is imported from, too, and in the folders of Hydra's search path
   (`--config-dir`); or
2. it is a class of `LIBRARIES` or `NAMES` at its place, by its public name: these only compute.
"""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.hydra_config import HydraConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from thaw.config.conf_folder import conf_folders
from thaw.errors import UserError
from thaw.runs.files import CONFIG_FILE, strange_files

HYDRA_KEYS = frozenset(("_target_", "_args_", "_partial_", "_convert_", "_recursive_"))
"""Keys with which a configuration tells Hydra what to call, and how."""
LIBRARIES: dict[tuple[str, int], tuple[tuple[str, ...], type, str]] = {
    ("optimizer", 1): (("torch.optim", "timm.optim"), Optimizer, ""),
    ("schedule", 1): (("torch.optim.lr_scheduler",), LRScheduler, ""),
    ("loss", 1): (("torch.nn",), nn.Module, "torch.nn.modules.loss"),
    ("head", 1): (("torch.nn",), nn.Module, ""),
    ("task", 3): (("torchmetrics", "torchmetrics.classification"), Metric, "torchmetrics.classification."),
}
"""By group and depth: modules whose public classes may be named, a base of these, and where they are defined."""
NAMES: dict[tuple[str, int], Collection[str]] = {
    ("callbacks", 2): {
        f"lightning.pytorch.callbacks.{name}"
        for name in ("DeviceStatsMonitor", "EarlyStopping", "ModelSummary", "RichProgressBar", "Timer")
    },
    ("logger", 2): {f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")},
}
"""By group and depth: classes that may be named where others of their module run code or send data."""


class Naming(NamedTuple):
    """What a node of a configuration tells Hydra to call, and where the node is."""

    group: str
    """First word of its key."""
    depth: int
    """Number of words of its key."""
    target: str
    hydra_keys: frozenset[str]
    """Those of `HYDRA_KEYS` that it has."""


def namings(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Naming]]:
    """Dotted key and naming of each node of a configuration, given as plain values, that has one of `HYDRA_KEYS`."""
    children: Iterable[tuple[Any, Any]] = enumerate(values) if isinstance(values, list) else ()
    if isinstance(values, Mapping):
        children = values.items()
        if found := HYDRA_KEYS.intersection(values):
            target = values.get("_target_")
            yield ".".join(path), Naming("".join(path[:1]), len(path), str(target), found)
    for key, value in children:
        yield from namings(value, (*path, str(key)))


def offers(folders: Iterable[Path]) -> set[Naming]:
    """All that the YAML files in folders laid out like conf/ name. Files that Hydra could not read offer nothing."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is installed
    found = set()
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            try:
                if "_target_" not in (text := file.read_text(encoding="utf-8")):
                    continue
                values = yaml.load(text, loader)  # noqa: S506  # one of the two safe ones
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue
            for package in _packages(text, file.relative_to(folder).parent.parts):
                found |= {naming for _, naming in namings(values, package)}
    return found


def _packages(text: str, folders: tuple[str, ...]) -> Collection[tuple[str, ...]]:
    """Where Hydra puts the content of a file: where it says, else at its group, or (by `@_here_`) at the outermost."""
    if stated := re.match(r"\s*#\s*@package\s+(\S+)", text):
        return [() if stated[1] == "_global_" else tuple(stated[1].split("."))]
    return {folders, folders[:1]}


def strange(values: Mapping[str, Any], offered: Collection[Naming]) -> list[str]:
    """What a configuration, given as plain values, names by `_target_` that is not offered: `key._target_=target`."""
    return [
        f"{key}._target_={naming.target}" + (f" (with {', '.join(how)})" if how else "")
        for key, naming in namings(values)
        if naming not in offered and not _is_of_library(naming)
        for how in [sorted(naming.hydra_keys - {"_target_"})]
    ]


def _is_of_library(naming: Naming) -> bool:
    place, (module, _, name) = naming[:2], naming.target.rpartition(".")
    if naming.hydra_keys != {"_target_"}:
        return False
    if place in NAMES:
        return naming.target in NAMES[place]
    modules, base, home = LIBRARIES.get(place, ((), object, ""))
    if module not in modules or name.startswith("_"):
        return False
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:  # timm is an extra
        return False
    return inspect.isclass(found) and issubclass(found, base) and found.__module__.startswith(home)


def unresolved(values: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Dotted keys of a configuration, given as plain values, that hold `${`, or have it in their name."""
    if isinstance(values, Mapping | list):
        items = values.items() if isinstance(values, Mapping) else enumerate(values)
        return [found for key, value in items for found in unresolved(value, (*path, str(key)))]
    return [".".join(path)] if any("${" in str(text) for text in (values, *path)) else []


def own_folders(run: Path) -> list[Path]:
    """Thaw's folder of configurations and the user's own; one inside the folder `run` is not hers."""
    run = run.resolve()
    if (run.parent / CONFIG_FILE).is_file():  # a crash kit
        run = run.parent
    named = [*conf_folders(), Path.cwd() / "conf"]
    if HydraConfig.initialized():
        named += [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    folders = dict.fromkeys(folder.resolve() for folder in named if folder.is_dir())
    return [folder for folder in folders if not folder.is_relative_to(run)]


def require_offered(values: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError if the configuration of the run in `folder` names anything that is not offered."""
    if found := strange(values, offers(own_folders(folder))):
        raise UserError(
            f"{folder / CONFIG_FILE} names what neither thaw's conf/ nor yours offers there: {'; '.join(found)}. "
            f"It would be called, and may do anything on this machine. Type trust=true if you trust whoever made this "
            f"folder. A class of your own needs no trust where a YAML file of yours names it: "
            f"conf/{found[0].partition('.')[0]}/<name>.yaml in the working folder, or in --config-dir"
        )


def require_confined(folder: Path) -> None:
    """Raise UserError if a run folder holds links that lead out of it, or pipes and devices. Nothing is opened."""
    if found := strange_files(folder):
        raise UserError(
            f"{folder} holds links that lead out of it, pipes or devices: {', '.join(map(str, found[:5]))}. Commands "
            f"would write elsewhere, or hang. Put files in their place, or type trust=true if they are yours"
        )
