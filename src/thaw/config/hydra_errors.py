"""Says in one line what Hydra's exceptions mean, and what to type instead."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from traceback import extract_tb

import yaml
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig

from thaw.arguments import for_shell
from thaw.config.conf_folder import conf_file, conf_folders
from thaw.config.overrides import dotted_keys, similar_keys

FUNCTIONS = {"choice", "range", "interval", "glob", "sort", "shuffle", "tag", "int", "float", "str", "bool", "json_str"}
"""Functions of Hydra's overrides."""
OF_ITSELF = (
    "a file of your conf/ has itself in its `defaults`, or a file that begins with it: it replaces thaw's of the same "
    "name, so copy what it needs of that one, or give it another name, conf/<group>/<name>.yaml"
)


def explain(error: Exception) -> str | None:
    """What was wrong in what was typed; None if Hydra's own words have to do."""
    if found := re.match("Ambiguous value for argument '(.+)'", str(error)):
        key, _, values = found[1].partition("=")
        return f"{found[1]} is several values: -m runs one after the other; as a list they are {key}=[{values}]"
    if str(error).startswith("Config group override must be a string"):
        return "a group takes the name of a choice, not null: type logger=none, caching=off, mixing=none, or ~group"
    if isinstance(error, RecursionError) and any(
        "hydra" in frame.filename for frame in extract_tb(error.__traceback__)
    ):
        return OF_ITSELF
    if isinstance(error, OverrideParseException):
        return _no_override(error)
    if isinstance(error, MissingConfigException):
        return _no_option(error)
    if isinstance(error, ConfigCompositionException):
        return _no_key(error)
    return None


def _no_override(error: OverrideParseException) -> str:
    key, equals, value = error.override.partition("=")
    if not equals:
        as_path = f"name the key of a path, run={key} or input={key}; " if Path(key).exists() else ""
        return (
            f"{key} is not key=value: {as_path}quote a value with spaces for Hydra and for the shell, "
            f"{for_shell('key', 'two words')}; --help lists the keys"
        )
    said = f"Hydra does not understand {error.override}"
    if value[:1] in "[{'\"" or value.partition("(")[0] in FUNCTIONS:  # meant as a list, a mapping, a text, a function
        return f"{said}: {str(error).splitlines()[0]}"
    return f"{said}: quote the value for Hydra and for the shell, {for_shell(key, value)}"


def _no_option(error: MissingConfigException) -> str | None:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = re.findall(r"^\t([\w.-]+)$", str(error), re.MULTILINE) or _options(group)
    if not options:
        return None
    if meant := difflib.get_close_matches(name, options, n=2):
        hint = f"type {group}={f' or {group}='.join(meant)}"
    elif group == "backbone":
        hint = f"a network of a library is named by backbone.name, type backbone=torchvision backbone.name={name}"
    else:
        hint = f"an own one is a file conf/{group}/{name}.yaml"
    return f"{group}={name} is none of {', '.join(options)}: {hint}"


def _no_key(error: ConfigCompositionException) -> str | None:
    if found := re.match(r"Could not append to config. An item is already at '([^']+)'", str(error)):
        return f"{found[1]} is there already: type {found[1]}=... without the plus sign"
    if found := re.match(r"Could not delete from config. '([^']+)'", str(error)):
        return f"there is no {found[1]} to leave out: --cfg job prints all that there is"
    found = re.match(r"Could not override '([^']+)'", str(error))
    node = getattr(error.__cause__, "parent_node", None)
    if found is None:
        return None
    typed = found[1]
    if not isinstance(node, DictConfig) and typed in _groups():
        read = ", or type python -m thaw.summary folder=..." if typed == "sweep" else ""
        return f"this command has no {typed}: leave it out{read}"
    if not isinstance(node, DictConfig):  # the name of a group
        meant = difflib.get_close_matches(typed, _groups(), n=2)
        return f"there is no {typed}: {_type_one_of(meant)}"
    part, name = node._get_full_key(None), str(getattr(error.__cause__, "key", typed))
    if not part:
        meant = similar_keys(typed, [*map(str, node), *dotted_keys(node)])
        return f"there is no key {typed}: {_type_one_of(meant)}"
    names = [str(key) for key in node if key != "_target_"]
    if not names:
        return f"{part} takes new keys with a plus sign: type +{typed}=..."
    return f"{part} has no key {name}, but {', '.join(names)}. {_where_from(part, name, names, node)}"


def _where_from(part: str, name: str, names: Iterable[str], node: DictConfig) -> str:
    """Where a key may be found that a part of the configuration has not."""
    if owners := [option for option in _options(part) if name in _keys(part, option)]:
        return f"{name} belongs to {part}={f', {part}='.join(owners)}"
    if meant := similar_keys(name, names)[:2]:
        return f"Did you mean {part}.{f' or {part}.'.join(meant)}?"
    if "_target_" in node:
        return f"If {node._target_} takes it, type +{part}.{name}=..."
    return f"A new one is added by +{part}.{name}=..."


def _type_one_of(keys: list[str]) -> str:
    return f"type {'=... or '.join(keys)}=..." if keys else "--help lists all keys"


def _groups() -> list[str]:
    return sorted({group.name for folder in conf_folders() for group in folder.iterdir() if group.is_dir()})


def _options(group: str) -> list[str]:
    return sorted({file.stem for folder in conf_folders() for file in (folder / group).glob("*.yaml")})


def _keys(group: str, option: str) -> set[str]:
    content = yaml.safe_load(conf_file(f"{group}/{option}.yaml").read_text(encoding="utf-8"))
    return set(content or ())
