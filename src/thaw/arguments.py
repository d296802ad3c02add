"""Arguments `key=value` of commands: quoted for Hydra, which parses the value, and for the shell."""

import re
import shlex

BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z/][\w./-]*", re.ASCII | re.IGNORECASE)
"""Values that Hydra takes as text without quotes."""


def for_hydra(key: str, value: object) -> str:
    """Return `key=value` so that Hydra and OmegaConf take the value as this very text, whatever is in it."""
    text = str(value)
    if BARE.fullmatch(text):
        return f"{key}={text}"
    without_interpolations = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Backslashes count as escapes before a quote only, and before the closing one.
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), without_interpolations)
    return f'{key}="{escaped}"'


def for_shell(key: str, value: object) -> str:
    """Return `key=value` to paste into a shell, as part of a command of thaw."""
    return shlex.quote(for_hydra(key, value))
