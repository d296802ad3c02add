"""Class names that are probably one label, written in several ways."""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def spellings(class_names: Iterable[str]) -> list[list[str]]:
    """Groups of class names that differ only in case, spaces, invisible characters, or how a number is written."""
    groups = defaultdict(list)
    for name in class_names:
        groups[_plain(name)].append(name)
    return [names for names in groups.values() if len(names) > 1]


def spelling_hint(class_names: Iterable[str]) -> str:
    """What to append to a message about classes: groups of `spellings`, each on a line; empty if there are none."""
    lines = ["\n  '" + "' = '".join(names) + "'" for names in spellings(class_names)]
    return "".join(["\nclasses that differ only in how they are written:", *lines]) if lines else ""


def _plain(name: str) -> str | float:
    visible = (character for character in name if unicodedata.category(character) != "Cf")
    words = " ".join(unicodedata.normalize("NFKC", "".join(visible)).casefold().replace("_", " ").split())
    try:
        number = float(words)
    except ValueError:
        return words
    return number if math.isfinite(number) else words
