"""Learning rates of the stages by step."""

from collections.abc import Mapping, Sequence
from math import isfinite, log10, nan

from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from thaw.reporting.pictures.labels import label_ends, number, shortened
from thaw.reporting.pictures.phases import PhaseSpan, draw_phases, phase_labels
from thaw.reporting.pictures.style import DPI, GREY, ORDERED, WIDTH, Picture, empty, plain

ROW = 0.19
"""Height of the name of a stage, in inches."""


def stage_rates(rates: Mapping[str, Sequence[tuple[int, float]]], phases: Sequence[PhaseSpan] = ()) -> Figure:
    """Return a line for each stage, pale at the input and dark at the output; rates of 0 leave a gap.

    Args:
        rates: optimizer steps, from 0, with learning rates, by stage from input to output.
        phases: in optimizer steps.
    """
    steps = [step for points in rates.values() for step, _ in points]
    positive = [rate for points in rates.values() for _, rate in points if rate > 0 and isfinite(rate)]
    if not steps:
        return empty("no steps yet")
    if not positive:
        return empty("all learning rates are 0")
    last = max([*steps, *(phase.last for phase in phases)])
    labels, key = phase_labels(phases, (WIDTH * DPI - 200) / (last + 1))
    height = max(3.2, ROW * len(rates))
    picture = Picture(WIDTH, height + 0.6)
    axes = plain(picture.subplots(), "y")
    axes.set_yscale("log")
    low, high = log10(min(positive)) - 0.1, log10(max(positive)) + 0.1
    room = max(high - low, 0.5) * (1.1 if phases else 1)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(10**low, 10 ** (low + room)), xlabel="step", ylabel="learning rate")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if room > 1.5 else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: number(rate)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    ends = []
    for position, (stage, points) in enumerate(rates.items()):
        shown = [rate if rate > 0 and isfinite(rate) else nan for _, rate in points]
        colour = ORDERED(position / max(len(rates) - 1, 1))
        dots = 4 if len(points) == 1 else 0
        axes.plot([step for step, _ in points], shown, "-o", color=colour, linewidth=1.6, markersize=dots, label=stage)
        rate = next((rate for rate in reversed(shown) if isfinite(rate)), 0.0)
        ends.append((rate or 10**low, f"{shortened(stage, 18)}  {number(rate)}", to_hex(colour) if rate else GREY))
    label_ends(axes, ends, gap=ROW / height)
    draw_phases(axes, phases, labels)
    picture.note(key)
    return picture
