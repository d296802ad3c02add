"""Images side by side. H, W: height and width in pixels, of any size and different for each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from thaw.reporting.pictures.labels import wrapped
from thaw.reporting.pictures.style import DPI, GREEN, GREY, INK, ORANGE, WIDTH, Picture, empty

Image = NDArray[np.uint8]
"""(H, W) or (H, W, 3)."""
MOST_COLUMNS = 6
CAPTION_LINES = 3
LINE = 0.155
"""Height of a line of a caption, in inches."""
GAP = 0.12
"""Between images, in inches."""


def image_grid(
    images: Sequence[Image],
    captions: Sequence[str],
    correct: Sequence[bool] | None = None,
    columns: int | None = None,
) -> Figure:
    """Return the images in rows, each above its caption.

    Args:
        images: small ones are enlarged without smoothing.
        captions: one for each image, such as `true 3 / predicted 8, 97 %`; long ones are wrapped, then shortened.
        correct: whether each prediction is right: a green frame with a tick, or a red one with a cross.
        columns: images in a row; None: as many as leaves them large enough.

    Raises:
        ValueError: numbers of images, captions and `correct` differ, or an image has another shape or type.
    """
    if len(images) != len(captions) or (correct is not None and len(correct) != len(images)):
        counts = f"{len(images)} images, {len(captions)} captions" + (f", {len(correct)} correct" if correct else "")
        raise ValueError(f"one caption for each image, and one `correct` if given, not {counts}")
    if not len(images):
        return empty("no images")
    columns = columns or min(MOST_COLUMNS, max(len(images), 4))
    side = (WIDTH - GAP) / columns - GAP
    lines = [wrapped(caption, int(side * 14.5), CAPTION_LINES) for caption in captions]
    row_height = side + GAP + LINE * max(caption.count("\n") + 1 for caption in lines)
    rows = -(-len(images) // columns)
    width = GAP + min(columns, len(images)) * (side + GAP)
    height = GAP + rows * (row_height + GAP / 2)
    picture, axes = _canvas(width, height)
    for position, (image, caption) in enumerate(zip(images, lines, strict=True)):
        left = GAP + position % columns * (side + GAP)
        top = GAP + position // columns * (row_height + GAP / 2)
        _cell(axes, image, left, top, side, None if correct is None else bool(correct[position]))
        axes.text(left + side / 2, top + side + 0.07, caption, ha="center", va="top", fontsize=8, color=INK)
    return picture


def views_grid(originals: Sequence[Image], views: Sequence[Sequence[Image]], names: Sequence[str] = ()) -> Figure:
    """Return a row for each sample: the original, then its views; `names` stand above them.

    Raises:
        ValueError: another number of originals than of rows of views, or an image has another shape or type.
    """
    if len(originals) != len(views):
        raise ValueError(f"one sequence of views for each original, not {len(views)} for {len(originals)}")
    if not len(originals):
        return empty("no images")
    columns = 1 + max(len(row) for row in views)
    side = min((WIDTH - 2 * GAP) / columns - GAP, 1.8)
    heading = 0.3
    width = 2 * GAP + columns * (side + GAP)
    picture, axes = _canvas(width, heading + len(originals) * (side + GAP))
    above = ["original", *names, *(f"view {number}" for number in range(len(names) + 1, columns))]
    for row, (original, others) in enumerate(zip(originals, views, strict=True)):
        for column, image in enumerate([original, *others]):
            left = GAP + column * (side + GAP) + (GAP if column else 0)  # the original stands apart
            _cell(axes, image, left, heading + row * (side + GAP), side)
            if row == 0:
                axes.text(left + side / 2, 0.2, above[column], ha="center", fontsize=8.5, color=GREY)
    return picture


def _canvas(width: float, height: float) -> tuple[Picture, Axes]:
    """A picture and axes that fill it, in inches from its upper left corner. One for all images: axes are slow."""
    picture = Picture(width, height, layout=None)
    axes = picture.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return picture, axes


def _cell(axes: Axes, image: Image, left: float, top: float, side: float, right: bool | None = None) -> None:
    """Draw an image at the bottom of a square of `side` inches, with a frame that says whether it is classified right.

    Args:
        axes: those of `_canvas`.
        image: any image.
        left: of the corner of the square.
        top: of the corner of the square.
        side: of the square.
        right: whether its class is right; None: unknown.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an image is uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
    rows, columns = image.shape[:2]
    wide, high = (side * length / max(rows, columns) for length in (columns, rows))
    start, end = left + (side - wide) / 2, top + side
    smooth = max(rows, columns) > side * DPI  # made smaller: every pixel counts
    extent = (start, start + wide, end, end - high)
    axes.imshow(
        image, "gray", aspect="auto", extent=extent, vmin=0, vmax=255, interpolation="hanning" if smooth else "nearest"
    )
    colour, line = ("#B0B0B0", 0.8) if right is None else (GREEN if right else ORANGE, 3)
    axes.add_patch(Rectangle((start, end - high), wide, high, fill=False, edgecolor=colour, linewidth=line))
    if right is not None:
        mark: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 9, "color": "white"}
        box = {"facecolor": colour, "linewidth": 0, "pad": 1.5}
        axes.text(start + 0.04, end - high + 0.04, "✓" if right else "✗", bbox=box, **mark)
