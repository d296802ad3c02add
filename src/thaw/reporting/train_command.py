"""The command that trains a run again."""

import shlex
from collections.abc import Iterable

from thaw.runs.secrets import masked_override


def train_command(overrides: Iterable[str]) -> str:
    """Return the command to paste into a shell, with what looks like a secret hidden."""
    return " ".join(["python -m thaw.train", *(shlex.quote(masked_override(override)) for override in overrides)])
