"""What all pictures share: colours, fonts and sizes.

Sizes are in inches at `DPI` pixels per inch: `WIDTH` is 800 pixels.
"""

import warnings
from functools import cache
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text

DPI, WIDTH = 100, 8.0
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
"""Okabe and Ito's, which colour-blind readers tell apart: measured or right; wrong or best; additional."""
INK, GREY, FAINT = "#222222", "#6B6B6B", "#E4E4E4"
"""Text; secondary text and lines; grids and bands."""
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288", "#999933", "#000000")
"""For up to ten classes."""
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", BLUE])
ORANGES = LinearSegmentedColormap.from_list("oranges", ["#FFFFFF", "#F0A060", "#A03800"])
ORDERED = LinearSegmentedColormap.from_list("ordered", ["#C9901A", "#4A9C86", "#2C6E9B", "#3B1F5B"])
"""For what has an order, pale to dark: stages from input to output, trials from bad to good."""

EAST_ASIAN = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Arial Unicode MS")
FONTS = (
    ("DejaVu Sans",),
    (*EAST_ASIAN, "Noto Sans KR", "Apple SD Gothic Neo", "AppleGothic", "Malgun Gothic", "NanumGothic"),
    (*EAST_ASIAN, "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "WenQuanYi Zen Hei"),
    ("Noto Sans Devanagari", "Nirmala UI"),
    ("Noto Sans Thai", "Tahoma"),
    ("Noto Emoji", "Symbola", "Segoe UI Symbol"),
)
"""Font families by script, the best first. Colour fonts are left out: matplotlib cannot draw them."""


class Picture(Figure):
    """Figure that draws any text as it stands, whoever draws it: `$` is no mathematics, and a missing glyph is a box.

    Args:
        width: in inches.
        height: in inches.
        title: what is shown; above it all, at the left.
    """

    def __init__(self, width: float, height: float, title: str = "", **options: Any):
        super().__init__(figsize=(width, height), dpi=DPI, facecolor="white", **{"layout": "constrained", **options})
        if title:
            self.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)

    def draw(self, renderer: Any) -> None:
        """Draw with a font for each script."""
        for text in self.findobj(Text):
            text.set(fontfamily=font_families(), parse_math=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(Glyph \d+|Matplotlib currently does not support)", UserWarning)
            super().draw(renderer)
        self.set_layout_engine("none")  # another layout would differ a little from this one

    def note(self, text: str) -> None:
        """Write a remark below it all."""
        if text:
            lines = fill(text, int(self.get_figwidth() * 15), break_on_hyphens=False)
            self.supxlabel(lines, x=0.012, ha="left", fontsize=8, color=GREY)


def empty(message: str) -> Picture:
    """Return a picture that says why there is nothing to see."""
    picture = Picture(WIDTH, 1.2, layout=None)
    picture.text(0.5, 0.5, message, ha="center", va="center", color=GREY)
    return picture


def plain(axes: Axes, grid: str = "") -> Axes:
    """Lighten the frame and ticks of axes, with a faint grid along `grid` (x, y or both); return the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.tick_params(which="both", labelsize=8.5, labelcolor=GREY, color="#B0B0B0", length=3)
    axes.xaxis.label.set(color=GREY, fontsize=9)
    axes.yaxis.label.set(color=GREY, fontsize=9)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return axes


@cache
def font_families() -> list[str]:
    """Return the first installed family for each script, ready as matplotlib's `font.family`."""
    installed = set(get_font_names())
    first = (next((family for family in families if family in installed), None) for families in FONTS)
    return [*dict.fromkeys(family for family in first if family), "sans-serif"]
