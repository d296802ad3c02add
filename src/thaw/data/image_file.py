"""Read image files as viewers show them: upright, in RGB.

Imports nothing of thaw, because this file is copied as it is next to an exported network.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

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


class UnsupportedPixelsError(ValueError):
    """The pixels of an image are numbers without an agreed brightness."""


def load_image(file: str | Path) -> Image.Image:
    """Load an image file as RGB, upright.

    EXIF orientation is applied, transparency becomes white, the upper 8 of 16 bits are kept, and of an animation the
    first frame is taken.

    Raises:
        ValueError: saying what is wrong with the file.
    """
    with quiet_pillow():
        return load_in_thread(file)


def load_in_thread(file: str | Path) -> Image.Image:
    """Load an image file like `load_image`, inside the caller's `quiet_pillow`. Safe in threads."""
    image = _decode(file, Path(file), as_rgb)
    image.info = {}  # what they say of orientation and transparency is done
    return image


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


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image and return it as RGB, upright.

    Raises:
        UnsupportedPixelsError: if the range of its pixels is unknown.
    """
    image.load()
    if (turn := TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return Image.fromarray(_upper_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise UnsupportedPixelsError(
            "its pixels are floating-point numbers of unknown range: convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _decode(source: Any, file: Path, finish: Callable[[Image.Image], T]) -> T:
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


def _upper_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise UnsupportedPixelsError("its pixels are integers of more than 16 bits: convert it to 8 or 16 bits")
    return np.rint(values / 257).astype(np.uint8)  # 65535 -> 255


def _why_no_image(file: Path) -> str:
    if not file.exists():
        return "there is no such file" if not file.is_symlink() else "a link to nothing"
    if file.is_dir():
        return "a folder"
    if file.stat().st_size == 0:
        return "empty"
    if file.suffix.lower() in (".heic", ".heif"):
        return "HEIC, which Pillow does not read: convert it to JPEG"
    return "not an image"
