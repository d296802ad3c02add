"""Loss and metrics by epoch."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.reporting.pictures.labels import label_ends, number, shortened
from thaw.reporting.pictures.phases import PhaseSpan, draw_phases, phase_labels
from thaw.reporting.pictures.style import BLUE, COLOURS, DPI, GREEN, GREY, INK, ORANGE, WIDTH, Picture, empty, plain

Curve = Sequence[tuple[int, float]]
"""Epochs, from 0, with values, of which some may be NaN or infinite."""
SPLIT_COLOURS = {"train": GREY, "val": BLUE, "test": ORANGE}
LONG = 18
"""Characters of a name above which it is written smaller."""


def learning_curves(
    curves: Mapping[str, Mapping[str, Curve]], phases: Sequence[PhaseSpan] = (), best_epoch: int | None = None
) -> Figure:
    """Return a panel for each category with the curves of its splits; epochs are shown counted from 1.

    Args:
        curves: by category, such as `loss`, then by split.
        phases: in epochs.
        best_epoch: from 0; marked in all panels, with the value of the validation split.
    """
    curves = {name: {split: curve for split, curve in splits.items() if curve} for name, splits in curves.items()}
    epochs = [epoch for splits in curves.values() for curve in splits.values() for epoch, _ in curve]
    if not epochs:
        return empty("no epochs yet")
    last = max([*epochs, *(phase.last for phase in phases)])
    columns = min(len(curves), 2)
    rows = -(-len(curves) // columns)
    labels, key = phase_labels(phases, (WIDTH * DPI / columns - 120) / (last + 1))
    picture = Picture(WIDTH, rows * (2.6 if columns == 2 else 3.4) + (0.3 if key else 0))
    picture.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    panels = picture.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    for panel, (category, splits) in zip(panels, curves.items(), strict=False):
        panel.set(xlim=(0.5, last + 1.5), xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        plain(panel, "y")
        size = 10.5 if len(category) <= LONG else 8.5  # `_mark` writes at the right
        panel.set_title(shortened(category, 28), loc="left", fontsize=size, color=INK)
        _panel(panel, splits, room=0.16 if any(labels) else 0.05)
        draw_phases(panel, phases, labels, shift=1)
        if best_epoch is not None:
            _mark(panel, splits, best_epoch)
    picture.note(key)
    return picture


def _panel(axes: Axes, splits: Mapping[str, Curve], room: float) -> None:
    """Draw the curves, with name and last value beside them; `room` is a share of the height left free at the top."""
    heights = [value for curve in splits.values() for _, value in curve if isfinite(value)]
    low, high = min(heights, default=0.0), max(heights, default=1.0)
    height = max(high - low, 0.1 * abs(high)) or 1.0
    axes.set_ylim(low - 0.05 * height, high + room * height)
    ends = []
    for position, (split, curve) in enumerate(splits.items()):
        colour = SPLIT_COLOURS.get(split, (GREEN, *COLOURS[3:])[position % 8])
        values = [value if isfinite(value) else nan for _, value in curve]
        dots = 5 if len(curve) == 1 else 2.5 if len(curve) <= 30 else 0
        epochs = [epoch + 1 for epoch, _ in curve]
        axes.plot(epochs, values, "-o", color=colour, linewidth=1.8, markersize=dots, label=split)
        finite = [value for value in values if isfinite(value)]
        said = " → ".join([*map(number, finite[-1:]), *([] if isfinite(values[-1]) else ["nan"])])
        ends.append((finite[-1] if finite else low, f"{shortened(split, 8)} {said}", colour))
    label_ends(axes, ends, gap=0.085)
    if not heights:
        axes.set_yticks([])


def _mark(axes: Axes, splits: Mapping[str, Curve], best_epoch: int) -> None:
    axes.axvline(best_epoch + 1, ymax=0.88, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    value = dict(splits.get("val", ())).get(best_epoch, nan)
    if isfinite(value):
        axes.plot([best_epoch + 1], [value], "o", color=BLUE, markeredgecolor="white", markersize=7, label="best")
    said = f": {number(value)}" if isfinite(value) else ""
    axes.set_title(f"best epoch {best_epoch + 1}{said}", loc="right", fontsize=8.5, color=GREY)
