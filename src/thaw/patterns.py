"""Patterns that choose addresses, `stage.path`, by themselves or by their stage."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase


def matches(stages: Mapping[str, Sequence[str]], patterns: Iterable[str]) -> frozenset[str]:
    """Addresses that one of the patterns matches, by themselves or by their stage; `stages`: addresses by stage."""
    return frozenset(
        address
        for pattern in patterns
        for stage, addresses in stages.items()
        for address in addresses
        if fnmatchcase(stage, pattern) or fnmatchcase(address, pattern)
    )


def chosen(stages: Mapping[str, Sequence[str]], patterns: Iterable[str]) -> frozenset[str]:
    """Addresses that the patterns match, without those that `!pattern` excludes; of exclusions only, all others."""
    patterns = list(patterns)
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    included = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    return matches(stages, included) - matches(stages, excluded)
