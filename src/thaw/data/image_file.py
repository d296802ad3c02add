"""Read image files as viewers show them: upright, in RGB.

Imports nothing of thaw, because this file is copied as it is next to an exported network.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

T = TypeVar("T")

_FORMATS = "jpg jpeg jpe jfif png apng bmp gif webp tif tiff ppm pgm pbm pnm avif heic heif"
SUFFIXES = tuple(f".{name}" for name in _FORMATS.split())
"""Endings of the names of image files, in lower case."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image upright, by EXIF orientation.

Pillow's `exif_transpose` also rewrites the metadata, which fails if they are damaged.
"""


MAX_16_BITS = 65535
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of grey images with more than 8 bits."""


SPECIAL = "a pipe, a socket or a device"


class UnsupportedPixelsError(ValueError):
    """The pixels of an image are numbers without an agreed brightness."""


def load_image(file: str | Path, max_value: int | None = None) -> Image.Image:
    """Load an image file as RGB, upright.

    EXIF orientation is applied, transparency becomes white, the upper 8 of 16 bits are kept, and of an animation the
    first frame is taken.

    Args:
        file: The image file.
        max_value: Value of grey 16-bit images that is white; None for 65535.

    Raises:
        ValueError: saying what is wrong with the file.
    """
    with quiet_pillow():
        return load_in_thread(file, max_value)


def load_in_thread(file: str | Path, max_value: int | None = None) -> Image.Image:
    """Load an image file like `load_image`, inside the caller's `quiet_pillow`. Safe in threads."""
    image = _decode(file, Path(file), lambda image: as_rgb(image, max_value))
    image.info = {}  # what they say of orientation and transparency is done
    return image


def is_special(file: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device: to open one may take for ever."""
    return not file.is_file() and file.exists() and not file.is_dir()


def stored_size(file: Path) -> tuple[int, int]:
    """Return width and height from the header of a file, before EXIF orientation is applied.

    Raises:
        ValueError: like `load_image`.
    """
    return _decode(file, file, lambda image: image.size)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence warnings about damaged metadata and large images, in all threads; only one thread may enter it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find_fault(content: bytes, file: Path) -> str | None:
    """Return why `load_image` would fail on a file with this content, or None if it would not. Cheaper than loading."""
    try:
        _decode(BytesIO(content), file, _decode_small)
    except ValueError as error:
        return str(error)
    return None


def largest_value(content: bytes) -> int | None:
    """Largest value in a grey 16-bit image, from the intact content of its file; None for any other image."""
    with Image.open(BytesIO(content)) as image:
        return int(np.asarray(image).max()) if image.mode in DEEP_MODES else None


def as_rgb(image: Image.Image, max_value: int | None = None) -> Image.Image:
    """Decode an opened image and return it as RGB, upright; `max_value` as in `load_image`.

    Raises:
        UnsupportedPixelsError: if the range of its pixels is unknown.
    """
    image.load()
    if (turn := TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode in DEEP_MODES:
        return Image.fromarray(_eight_bits(np.asarray(image), max_value or MAX_16_BITS)).convert("RGB")
    if image.mode == "F":
        low, high = image.getextrema()
        raise UnsupportedPixelsError(
            f"its pixels are floating-point numbers from {low:.3g} to {high:.3g}, of which none is agreed to be white: "
            f"convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _decode(source: Any, file: Path, finish: Callable[[Image.Image], T]) -> T:
    if not isinstance(source, BytesIO) and is_special(file):
        raise ValueError(SPECIAL)
    try:
        with Image.open(source) as image:
            return finish(image)
    except (UnidentifiedImageError, FileNotFoundError, IsADirectoryError):
        raise ValueError(_why_no_image(file)) from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large ({error})") from None
    except UnsupportedPixelsError:
        raise
    # A damaged file makes decoders raise anything: OSError if it is cut short, SyntaxError in PNG, struct.error ...
    except Exception as error:
        raise ValueError(f"cannot be decoded ({str(error) or type(error).__name__})") from None


def _decode_small(image: Image.Image) -> Image.Image:
    """Decode the whole file, but a JPEG to an eighth of its size, which takes a third of the time."""
    image.draft(image.mode, (1, 1))
    return as_rgb(image)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, or 1 (as stored) if it cannot be read, as viewers do."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # SyntaxError, struct.error ... from damaged metadata
        return 1


def _eight_bits(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    if low < 0:
        raise UnsupportedPixelsError(
            f"its pixels are signed integers from {low} to {high}, of which none is agreed to be black: "
            f"convert it to 8 or 16 bits"
        )
    if high > MAX_16_BITS:
        raise UnsupportedPixelsError(
            f"its pixels are integers up to {high}, more than 16 bits: convert it to 8 or 16 bits"
        )
    if high > white:
        raise UnsupportedPixelsError(f"its pixels reach {high}, above max_value={white}")
    return np.rint(values / (white / 255)).astype(np.uint8)


def _why_no_image(file: Path) -> str:
    if not file.exists():
        return "there is no such file" if not file.is_symlink() else "a link to nothing"
    if file.is_dir():
        return "a folder"
    if file.stat().st_size == 0:
        return "empty"
    if file.suffix.lower() in (".heic", ".heif"):
        return "HEIC, which Pillow does not read: convert it to JPEG"
    with suppress(Exception):  # of any other file, and of a damaged one
        return f"a TIFF of {_numbers_in_tiff(file)}, which Pillow does not read: convert it to 8 or 16 bits"
    return "not an image"


def _numbers_in_tiff(file: Path) -> str:
    """What the pixels of a TIFF file are: "64-bit floating-point numbers". Raises anything for another file."""
    with file.open("rb") as opened:
        tags = TiffImagePlugin.ImageFileDirectory_v2(opened.read(8))
        opened.seek(tags.next)
        tags.load(opened)
    kind = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers"}[
        tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
    ]
    return f"{tags[TiffImagePlugin.BITSPERSAMPLE][0]}-bit {kind}"
