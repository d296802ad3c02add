"""The phases of a run as labelled bands behind curves."""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from thaw.reporting.pictures.labels import shortened
from thaw.reporting.pictures.style import GREY

CHARACTER = 6.3
"""Width of a character of a label, in pixels."""


class PhaseSpan(NamedTuple):
    """A phase along the horizontal axis, which may be epochs or steps."""

    first: int
    """First epoch or step, from 0."""
    last: int
    """Last one, included."""
    label: str
    """Says what trains, such as `head`."""


def phase_labels(phases: Sequence[PhaseSpan], pixels_per_unit: float) -> tuple[list[str], str]:
    """Return a label for each phase and a key: names and no key where all names fit their bands, otherwise numbers.

    Where bands are too narrow for each number, some labels are empty.
    """
    room = [(phase.last - phase.first + 1) * pixels_per_unit / CHARACTER for phase in phases]
    names = [shortened(phase.label, 40) for phase in phases]
    if all(len(name) + 1 <= width for name, width in zip(names, room, strict=True)):
        return names, ""
    labels, free_from = [], -inf
    for position, phase in enumerate(phases, start=1):
        wide = (len(str(position)) + 0.5) * CHARACTER / pixels_per_unit
        middle = (phase.first + phase.last) / 2
        labels.append(str(position) if middle - wide / 2 >= free_from else "")
        free_from = middle + wide / 2 if labels[-1] else free_from
    return labels, "Phases: " + " · ".join(f"{position} {name}" for position, name in enumerate(names, start=1))


def draw_phases(axes: Axes, phases: Sequence[PhaseSpan], labels: Sequence[str], shift: int = 0) -> None:
    """Draw a band for each phase, every other one shaded; `shift` is added to their epochs or steps."""
    for position, (phase, label) in enumerate(zip(phases, labels, strict=True)):
        start, end = phase.first + shift - 0.5, phase.last + shift + 0.5
        axes.axvspan(start, end, facecolor="#F3F3F3" if position % 2 == 0 else "white", linewidth=0, zorder=0)
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
        axes.text((start + end) / 2, 0.985, label, fontsize=8, color=GREY, **place)
