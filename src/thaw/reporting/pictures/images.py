"""Images side by side. H, W: height and width in pixels, of any size and different for each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    picture = Picture(width, GAP + rows * (row_height + GAP / 2), layout=None)
    for position, (image, caption) in enumerate(zip(images, lines, strict=True)):
        left = GAP + position % columns * (side + GAP)
        top = GAP + position // columns * (row_height + GAP / 2)
        axes = _cell(picture, image, left, top, side)
        place: dict[str, Any] = {"xycoords": axes.transAxes, "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(caption, (0.5, 0), (0, -5), ha="center", va="top", fontsize=8, color=INK, **place)
        if correct is not None:
            _frame(axes, bool(correct[position]))
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
    picture = Picture(width, heading + len(originals) * (side + GAP), layout=None)
    for row, (original, others) in enumerate(zip(originals, views, strict=True)):
        for column, image in enumerate([original, *others]):
            left = GAP + column * (side + GAP) + (GAP if column else 0)  # the original stands apart
            _cell(picture, image, left, heading + row * (side + GAP), side)
            if row == 0:
                name = ["original", *names, *(f"view {n}" for n in range(len(names) + 1, columns))][column]
                x, y = (left + side / 2) / width, 1 - 0.2 / picture.get_figheight()
                picture.text(x, y, name, ha="center", fontsize=8.5, color=GREY)
    return picture


def _cell(picture: Figure, image: Image, left: float, top: float, side: float) -> Axes:
    """Draw an image in a square of `side` inches; `left` and `top` are its corner's distances, in inches."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an image is uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
    width, height = picture.get_size_inches()
    axes = picture.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    smooth = max(image.shape[:2]) > side * DPI  # made smaller: every pixel counts
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="hanning" if smooth else "nearest")
    axes.set(xticks=[], yticks=[], anchor="S")
    axes.spines[:].set(color="#B0B0B0", linewidth=0.8)
    return axes


def _frame(axes: Axes, right: bool) -> None:
    colour = GREEN if right else ORANGE
    axes.spines[:].set(color=colour, linewidth=3)
    mark: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 9, "color": "white", "transform": axes.transAxes}
    axes.text(0.03, 0.97, "✓" if right else "✗", bbox={"facecolor": colour, "linewidth": 0, "pad": 1.5}, **mark)
