"""What was typed after a command: refuses keys that nothing would read, and makes changes to a resumed plan known."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from thaw.errors import UserError

SYNONYMS = {"learning_rate": "lr", "wd": "weight_decay", "num_epochs": "epochs", "max_epochs": "epochs"}
"""What other programs call our keys."""


def typed_overrides() -> list[str]:
    """The overrides `key=value` typed after the command; empty if it runs from Python."""
    if not HydraConfig.initialized():
        return []
    typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)  # unresolved, that is as typed
    return typed


def overrides_to_record() -> list[str]:
    """The typed overrides without `run_folder=`, which a sweep adds when a trial runs in processes of its own."""
    return [override for override in typed_overrides() if not override.startswith("run_folder=")]


def require_known(overrides: Sequence[str], known: Collection[str], cfg: DictConfig) -> None:
    """Refuse `+key=value` whose first word is neither a key of the command's configuration nor a group of choices.

    Hydra adds such a key, and nothing reads it.

    Args:
        overrides: as typed.
        known: keys of the command's own configuration file, and groups.
        cfg: the composed configuration, in which similar keys are looked for.

    Raises:
        UserError: there is one; the message names keys that may be meant.
    """
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if override.startswith("+") and re.split(r"[./@]", key)[0] not in known:
            added = {other.lstrip("+").partition("=")[0] for other in overrides if other.startswith("+")}
            meant = similar_keys(key, [name for name in dotted_keys(cfg) if name not in added])
            hint = f"type {'=..., '.join(meant)}=..." if meant else "--help lists all keys"
            raise UserError(f"{override}: nothing reads {key}. {hint[0].upper()}{hint[1:]}")


def similar_keys(key: str, names: Iterable[str]) -> list[str]:
    """Those of some dotted keys whose last words are those of `key`, or else much like it."""
    wanted = key.split(".")[-1]
    wanted = SYNONYMS.get(wanted, wanted)
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(name.rpartition(".")[2], []).append(name)
    for matches in (
        [wanted],
        [name for name in by_name if name.endswith(f"_{wanted}") or wanted.endswith(f"_{name}")],
        [name for name in by_name if name.split("_")[-1] == wanted.split("_")[-1]],
        difflib.get_close_matches(wanted, by_name, n=3, cutoff=0.7),
    ):
        if found := [name for match in matches for name in by_name.get(match, ())]:
            return found[:4]
    return []


def with_new_plan_keys(arguments: Sequence[str]) -> list[str]:
    """Let `resume=<run> freezing.epochs=70` name any key of the run's plan, not only of the default plan.

    Hydra would refuse a key that the default plan has not. With `++` it takes it; whether the run's own plan has it is
    judged later.
    """
    resumes = any(argument.startswith("resume=") for argument in arguments)
    if not resumes or any(argument.startswith("freezing=") for argument in arguments):
        return list(arguments)
    return [f"++{argument}" if argument.startswith("freezing.") else argument for argument in arguments]


def dotted_keys(cfg: DictConfig) -> list[str]:
    """Keys of a configuration, those of its parts as `part.key`."""
    names = []
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not OmegaConf.is_missing(cfg, key) and not node._is_none():
            names += [f"{key!s}.{name}" for name in dotted_keys(node)]
        else:
            names.append(str(key))
    return names
