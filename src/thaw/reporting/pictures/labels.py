"""Short texts for pictures, and where they stand.

A column is the width of a Latin character; East Asian ones take two.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

UNDRAWABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that neither fonts nor XML have, such as those from file names in another encoding."""


def columns(text: str) -> int:
    """Return the width of a text, in columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def shortened(text: str, width: int) -> str:
    """Return `text` in one line of at most `width` columns, without its middle if it is longer.

    Class names often differ at their ends only. A blank one becomes `(no name)`.
    """
    text = " ".join(UNDRAWABLE.sub("\ufffd", str(text)).split()) or "(no name)"
    if columns(text) <= width:
        return text
    start, end = text[:width], text[-width:]
    while columns(start) > (width - 1) - (width - 1) // 3:
        start = start[:-1]
    while columns(end) > (width - 1) // 3:
        end = end[1:]
    return f"{start.rstrip()}…{end.lstrip()}"


def wrapped(text: str, width: int, most: int) -> str:
    """Return `text` in at most `most` lines of at most `width` columns, cut at spaces; longer words are shortened."""
    lines: list[str] = []
    for part in text.split("\n"):
        start = len(lines)
        for word in part.replace(" %", "\xa0%").split(" "):
            if len(lines) > start and columns(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
            elif word:
                lines.append(word)
    if len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return "\n".join(shortened(line, width) for line in lines)


def number(value: float) -> str:
    """Return a number in three digits, or in all that stand before the point."""
    text = f"{value:.0f}" if 1000 <= abs(value) < 100_000 else f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions in the same order that are at least `gap` apart and as near to the given ones as can be.

    Less a `gap` for each position below them they only have to rise: isotonic regression, by averaging neighbours.
    """
    order = np.argsort(positions, kind="stable")
    offsets = gap * np.arange(len(order))
    blocks: list[list[float]] = []
    for position in np.asarray(positions, float)[order] - offsets:
        blocks.append([position])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    result = np.empty(len(order))
    result[order] = [np.mean(block) for block in blocks for _ in block] + offsets
    return result.tolist()


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Write at the right of the axes what each line is, instead of a legend: height of its end, text and colour.

    The limits of the axes must be set. Labels are at least `gap` apart, a share of the height of the axes.
    """
    shares = [(axes.transScale + axes.transLimits).transform((1, height))[1] for height, _, _ in ends]
    for place, (_, text, colour) in zip(spread(shares, gap), ends, strict=True):
        axes.text(1.014, place, text, color=colour, fontsize=9, va="center", transform=axes.transAxes)
