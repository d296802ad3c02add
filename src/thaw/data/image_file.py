"""Image files, as every viewer shows them."""

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

_WORDS = "jpg jpeg jpe jfif png apng bmp gif webp tif tiff ppm pgm pbm pnm avif heic heif"
SUFFIXES = frozenset(f".{word}" for word in _WORDS.split())
"""What is taken for an image by its name, in lower case."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation. Pillow's exif_transpose also writes the metadata anew, which fails where they are odd."""


def load_image(file: str | Path) -> Image.Image:
    """The image as RGB, upright.

    EXIF orientation is applied; of an animation the first frame is taken; what is transparent becomes white; of 16 bits
    the upper 8 are kept. Raises ValueError saying what is wrong with the file.
    """
    with quiet_pillow():
        return load_in_thread(file)


def load_in_thread(file: str | Path) -> Image.Image:
    """`load_image`, where the caller quietens Pillow."""
    return _decode(file, Path(file), as_rgb)


def stored_size(file: Path) -> tuple[int, int]:
    """Width and height as the header has them: EXIF may turn the image. Raises ValueError as `load_image` does."""
    return _decode(file, file, lambda opened: opened.size)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without warnings about odd metadata and large photographs. Not for threads: the filters are the process's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fault(content: bytes, file: Path) -> str | None:
    """Why `load_image` would fail on a file of that content; None where it would not. Cheaper than loading it."""
    try:
        _decode(BytesIO(content), file, _small)
    except ValueError as error:
        return str(error)
    return None


def _decode(source: Any, file: Path, finish: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(source) as opened:
            return finish(opened)
    except (UnidentifiedImageError, FileNotFoundError, IsADirectoryError):
        raise ValueError(_not_an_image(file)) from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large ({error})") from None
    except UnsupportedPixelsError:
        raise
    # Whatever a broken file makes a decoder raise: OSError where it is cut short, SyntaxError in PNG, struct.error ...
    except Exception as error:
        raise ValueError(f"cannot be decoded ({str(error) or type(error).__name__})") from None


def _small(opened: Image.Image) -> Image.Image:
    """The whole file is decoded; a JPEG to an eighth of its size, which takes a third of the time."""
    opened.draft(opened.mode, (1, 1))
    return as_rgb(opened)


class UnsupportedPixelsError(ValueError):
    """An image whose numbers have no agreed brightness."""


def as_rgb(image: Image.Image) -> Image.Image:
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
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """1 (as stored) where it cannot be read, as viewers have it."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # SyntaxError, struct.error ... of broken metadata
        return 1


def _upper_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise UnsupportedPixelsError("its pixels are integers of more than 16 bits: convert it to 8 or 16 bits")
    return np.rint(values / 257).astype(np.uint8)  # 65535 -> 255


def _not_an_image(file: Path) -> str:
    if not file.exists():
        return "there is no such file" if not file.is_symlink() else "a link to nothing"
    if file.is_dir():
        return "a folder"
    if file.stat().st_size == 0:
        return "empty"
    if file.suffix.lower() in (".heic", ".heif"):
        return "HEIC, which Pillow does not read: convert it to JPEG"
    return "not an image"
