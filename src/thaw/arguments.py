"""Arguments `key=value` of commands: written for Hydra, which parses the value, and for the shell."""

import re
import shlex
from collections.abc import Mapping

BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z/][\w./-]*", re.ASCII | re.IGNORECASE)
"""Values that Hydra takes as text without quotes."""


def for_hydra(key: str, value: object) -> str:
    """Return `key=value` so that Hydra and OmegaConf take the value as this very text, whatever is in it."""
    return f"{key}={literal(str(value))}"


def literal(value: object) -> str:
    """A value as Hydra reads it: None, truth values, numbers, lists, mappings with ASCII keys; of all else the text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        items = (
            re.sub(r"[\\()\[\]{}:=, \t]", r"\\\g<0>", str(key)) + f":{literal(item)}" for key, item in value.items()
        )
        return "{" + ",".join(items) + "}"  # keys cannot stand in quotes
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    text = str(value)
    if BARE.fullmatch(text):
        return text
    without_interpolations = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Backslashes count as escapes before a quote only, and before the closing one.
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), without_interpolations)
    return f'"{escaped}"'


def for_shell(key: str, value: object) -> str:
    """Return `key=value` to paste into a shell, as part of a command of thaw."""
    return shlex.quote(for_hydra(key, value))
