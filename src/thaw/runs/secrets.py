"""Hides what looks like a secret in a configuration before loggers and reports, which others read, get it."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

MASK = "***"
SECRET_KEY = re.compile(
    r"(^|[_.-])(secrets?|token|passwo?r?d|pwd|passphrase|credentials?|(api|access|private|secret)_?key)$", re.IGNORECASE
)
"""Keys whose values are hidden, by their last words."""
IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
"""Name and password in an address, as in `postgresql://me:word@host/runs`."""


def masked(values: Any) -> Any:
    """The same nest of plain values, with `MASK` for what looks like a secret."""
    if isinstance(values, Mapping):
        return {
            key: MASK if value is not None and SECRET_KEY.search(str(key)) else masked(value)
            for key, value in values.items()
        }
    if isinstance(values, list):
        return [masked(value) for value in values]
    return IN_URL.sub(MASK, values) if isinstance(values, str) else values


def masked_yaml(text: str) -> str:
    """The same configuration as YAML; the text itself if it holds no secret."""
    values = yaml.safe_load(text)
    hidden = masked(values)
    return text if hidden == values else yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True)


def masked_override(override: str) -> str:
    """The same `key=value`, as it was typed."""
    key, equals, value = override.partition("=")
    return f"{key}={MASK}" if equals and SECRET_KEY.search(key) else key + equals + IN_URL.sub(MASK, value)
