"""Figures as files and arrays. The same calls give the same bytes. H, W: height and width in pixels."""

import re
from io import BytesIO, StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_TAG = re.compile(r"<[a-zA-Z][^>]*>")
_IDENTIFIER = re.compile(r'\bid="|\bhref="#|url\(#')


def png(figure: Figure) -> bytes:
    """Return the bytes of a PNG file."""
    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def rgb(figure: Figure) -> NDArray[np.uint8]:
    """Return the pixels, (H, W, 3): also for `wandb.Image`, which takes Figure but no subclass of it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def svg(figure: Figure, prefix: str) -> str:
    """Return an `<svg>` element to put into an HTML page. Text stays text, so a browser shows it in fonts of its own.

    Args:
        figure: what to draw.
        prefix: starts every id; another one for each picture of a page.

    Raises:
        ValueError: `prefix` cannot be an id.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", prefix, re.ASCII):
        raise ValueError(f"prefix is a letter, then letters, digits, - or _, not {prefix!r}: write 'curves'")
    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = file.getvalue()[file.getvalue().index("<svg") :]
    # Text holds no `<` or `>` of its own, so that tags are what stands between them.
    element = _TAG.sub(lambda tag: _IDENTIFIER.sub(rf"\g<0>{prefix}-", tag[0]), element)
    # A style in an SVG holds for the whole page.
    return element.replace("<svg", f'<svg id="{prefix}"', 1).replace(">*{", f">#{prefix} *{{", 1)
