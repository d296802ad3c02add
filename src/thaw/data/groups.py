"""Groups of samples that must share a split, those of a patient, a site, a film: how they are told and checked."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from thaw.data.report import format_list
from thaw.errors import UserError
from thaw.types import Indices

NUMBERED = r"[-_ /][a-z]*\d{1,5}[.]\w+$"
"""The end of the name of a file with a number of its own."""
LOOKS_GROUPED = rf"([^/]*\d[^/]*){NUMBERED}"
"""A file with another number before its own, also in its folder: `patient12_003.jpg`, `film7/003.jpg`."""
MOST = 0.8
"""Share of the files that must look grouped for a warning."""
EXAMPLE = (
    "A regular expression is searched for in the path below data.root, and its first parenthesis is the group: type "
    r"""'data.group="(patient\d+)"'"""
)


def groups_of_paths(pattern: str, paths: Sequence[str]) -> list[str]:
    """The group of each path: what the first parenthesis of a regular expression matches, or all that it matches.

    Raises:
        UserError: it is no regular expression, or some path does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.group={pattern} is no regular expression ({error}). {EXAMPLE}") from error
    matches = [expression.search(path) for path in paths]
    if unmatched := [path for path, match in zip(paths, matches, strict=True) if match is None or not _group(match)]:
        what = f"of {len(paths)} paths have no group by data.group={pattern}"
        raise UserError(f"{format_list(what, unmatched, most=10)}\n{EXAMPLE}")
    return [_group(match) for match in matches if match is not None]


def _group(match: re.Match[str]) -> str:
    return match[min(1, match.re.groups)] or ""


def groups_apart(parts: Mapping[str, Indices], groups: Sequence[str]) -> list[str]:
    """Return a warning about groups that lie in different splits.

    Args:
        parts: Sample indices of each split.
        groups: The group of every sample.
    """
    splits_of = defaultdict(list)
    for part, indices in parts.items():
        for group in sorted({groups[index] for index in indices.tolist()}):
            splits_of[group].append(part)
    lines = [f"{group} ({', '.join(splits)})" for group, splits in splits_of.items() if len(splits) > 1]
    return [format_list("groups lie in different splits, so scores will flatter", lines)] if lines else []


def unnamed_groups(names: Iterable[str], num_classes: int) -> list[str]:
    """Return a warning if the names of files look as if there were several files of one patient, site or film.

    They do if most match `LOOKS_GROUPED` and share their beginning with others, and if there are so many beginnings
    that these are not the names of the classes.
    """
    # `NUMBERED` alone first: on long names without such an end the whole expression takes long.
    matches = [re.search(LOOKS_GROUPED, name) if re.search(NUMBERED, name) else None for name in names]
    sizes = Counter(match[1] for match in matches if match)
    shared = {group: size for group, size in sizes.items() if size > 1}
    if sum(shared.values()) < MOST * len(matches) or len(shared) <= 2 * num_classes:
        return []
    examples = ", ".join(f"{group} ({size} files)" for group, size in list(shared.items())[:3])
    return [
        f"the names of the files look like {len(sizes):,} groups, {examples} ...: where these are patients, sites or "
        f"films, a random split puts each into training and test, and scores will flatter. Type "
        f"'data.group=\"{LOOKS_GROUPED}\"' to keep them together"
    ]
