"""Samples that are there more than once."""

from collections import defaultdict
from collections.abc import Mapping

from thaw.data.labels import Labels
from thaw.data.report import format_list
from thaw.data.source import SourceFacts
from thaw.types import Indices


def identical_samples(parts: Mapping[str, Indices], labels: Labels, facts: SourceFacts) -> list[str]:
    """Return warnings about samples of equal digests that lie in different splits or have different labels."""
    part_of = {index: part for part, indices in parts.items() for index in indices.tolist()}
    groups = defaultdict(list)
    for index, digest in enumerate(facts.digests or ()):
        groups[digest].append(index)
    leaks, contradictions = [], []
    for group in groups.values():
        if len(group) == 1:
            continue
        names = " = ".join(facts.name(index) for index in group)
        if len({part_of[index] for index in group if index in part_of}) > 1:
            leaks.append(names)
        if len({labels.text(index) for index in group}) > 1:
            contradictions.append(names)
    warnings, identical = [], f"groups of identical {facts.things}"
    if leaks:
        warnings.append(format_list(f"{identical} lie in different splits, so scores will flatter", leaks))
    if contradictions:
        warnings.append(format_list(f"{identical} have different labels", contradictions))
    return warnings
