"""Odd images that must load right and bad ones that must be named, made on the spot."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def gradient(width: int = 24, height: int = 16) -> Pixels:
    """(H, W, 3), smooth, different in every corner and channel."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.rint(np.stack([230 * x, 200 * y + 20, 255 * (1 - x) * (1 - y)], axis=2)).astype(np.uint8)


RGB = gradient()
GREY = RGB[:, :, 0]
TURNED: dict[int, Callable[[Pixels], Pixels]] = {  # what a camera saved -> what it saw, by EXIF orientation
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


def odd_images(folder: Path) -> dict[Path, tuple[Pixels, int]]:
    """File -> its pixels (H, W, 3) as people see them, and by how much a lossy format may be off."""
    folder.mkdir(parents=True, exist_ok=True)
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    three = np.stack([GREY] * 3, axis=2)
    exact, lossy = 0, 12
    zoo: dict[Path, tuple[Pixels, int]] = {}

    def add(name: str, image: Image.Image, expected: Pixels, off: int, **options: object) -> None:
        image.save(folder / name, **options)  # type: ignore[arg-type]
        zoo[folder / name] = expected, off

    add("plain.png", colour, RGB, exact)
    add("UPPER.BMP", colour, RGB, exact)
    add("plain.ppm", colour, RGB, exact)
    add("plain.tif", colour, RGB, exact, compression="tiff_lzw")
    add("lossless.webp", colour, RGB, exact, lossless=True)
    add("plain.jpg", colour, RGB, lossy, quality=98, subsampling=0)
    add("progressive.jpeg", colour, RGB, lossy, quality=98, subsampling=0, progressive=True)
    add("señal 손 ✋.png", colour, RGB, exact)
    add("really_a_png.jpg", colour, RGB, exact, format="PNG")
    add("grey.png", grey, three, exact)
    add("grey.jpg", grey, three, lossy, quality=98, subsampling=0)
    add("bits.png", Image.fromarray(GREY > 100), np.where(three > 100, 255, 0).astype(np.uint8), exact)
    palette = colour.quantize(32)
    add("palette.png", palette, np.asarray(palette.convert("RGB")), exact)
    add("palette.gif", palette, np.asarray(palette.convert("RGB")), exact)
    add("cmyk.jpg", colour.convert("CMYK"), RGB, lossy, quality=98, subsampling=0)
    add("cmyk.tif", colour.convert("CMYK"), RGB, 1)
    add("ycbcr.tif", colour.convert("YCbCr"), RGB, 3)
    add("lab.tif", _lab(), np.full((16, 24, 3), 119, np.uint8), 2)

    alpha = np.tile(np.linspace(0, 255, 24).astype(np.uint8), (16, 1))
    part = alpha[:, :, None] / 255
    on_white = np.rint(RGB * part + 255 * (1 - part)).astype(np.uint8)
    add("rgba.png", Image.fromarray(np.dstack([RGB, alpha])), on_white, 1)
    grey_on_white = np.rint(three * part + 255 * (1 - part)).astype(np.uint8)
    add("grey_alpha.png", Image.merge("LA", [grey, Image.fromarray(alpha)]), grey_on_white, 1)
    clear = palette.copy()
    see_through = np.asarray(palette.convert("RGB")).copy()
    see_through[np.asarray(palette) == 0] = 255
    add("palette_clear.png", clear, see_through, exact, transparency=0)

    deep = (GREY.astype(np.uint16) * 257) + 100  # 100 of 65,535 is less than half of a step of 8 bits
    deep = np.where(GREY == 255, 65535, deep).astype(np.uint16)
    add("deep.png", Image.fromarray(deep), three, exact)
    add("deep.tif", Image.fromarray(deep), three, exact)
    add("deep32.tif", Image.fromarray(deep.astype(np.int32)), three, exact)
    _png16_rgb(folder / "deep_rgb.png", RGB)
    zoo[folder / "deep_rgb.png"] = RGB, exact

    others = [Image.fromarray(255 - RGB)] * 2
    for name in ("moving.gif", "moving.webp", "moving.png"):
        options = {"lossless": True} if name.endswith("webp") else {}
        first = palette if name.endswith("gif") else colour
        add(name, first, np.asarray(first.convert("RGB")), exact, save_all=True, append_images=others, **options)

    for orientation, seen in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"turned{orientation}.png", colour, seen(RGB), exact, exif=exif)
    add("turned6.jpg", colour, TURNED[6](RGB), lossy, exif=_exif(6), quality=98, subsampling=0)

    for name, options in (("broken_exif.png", {}), ("broken_exif.webp", {"lossless": True})):
        add(name, colour, RGB, exact, exif=b"Exif\0\0no such thing", **options)
    add("broken_exif.jpg", colour, RGB, lossy, exif=b"Exif\0\0no such thing", dpi=(72, 72), quality=98, subsampling=0)

    add("one_pixel.png", Image.fromarray(RGB[:1, :1]), RGB[:1, :1], exact)
    add("a_line.png", Image.fromarray(gradient(600, 1)), gradient(600, 1), exact)
    return zoo


def bad_files(folder: Path) -> dict[Path, str]:
    """File -> a part of what must be said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = {}
    for name in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        noise.save(folder / f"whole.{name}")
        whole[name] = (folder / f"whole.{name}").read_bytes()
        (folder / f"whole.{name}").unlink()
    bad: dict[Path, str] = {}

    def add(name: str, content: bytes, said: str) -> None:
        (folder / name).write_bytes(content)
        bad[folder / name] = said

    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    bad |= dict.fromkeys((folder / "pipe.jpg", folder / "device.png"), "a pipe, a socket or a device")
    add("empty.jpg", b"", "empty")
    add("text.jpg", b"hello, this is a text", "not an image")
    add("page.png", b"<!doctype html><title>404</title>", "not an image")
    add("noise.gif", bytes(range(256)), "not an image")
    for name, content in whole.items():
        add(f"cut.{name}", content[: len(content) * 2 // 3], "cannot be decoded")
    add("only_header.jpg", whole["jpg"][:3], "not an image")
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 255
    add("flipped.png", bytes(flipped), "cannot be decoded")
    add("photo.heic", b"\0\0\0\x18ftypheic", "convert it to JPEG")
    add("bomb.png", _png(60_000, 60_000), "too large")
    Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)).save(folder / "float.tif")
    bad[folder / "float.tif"] = "its pixels are floating-point numbers from 0.00274 to 0.997"
    signed = np.full((8, 8), 3071, np.int32)
    signed[0] = -1024
    Image.fromarray(signed).save(folder / "signed.tif")
    bad[folder / "signed.tif"] = "its pixels are signed integers from -1024 to 3071"
    for name, bits, kind, said in (
        ("float64", 64, 3, "a TIFF of 64-bit floating-point numbers"),
        ("signed64", 64, 2, "a TIFF of 64-bit signed integers"),
    ):
        add(f"{name}.tif", _tiff(bits, kind), said)
    Image.fromarray(np.full((8, 8), 10**6, np.int32)).save(folder / "integers.tif")
    bad[folder / "integers.tif"] = "more than 16 bits"
    (folder / "nowhere.png").symlink_to(folder / "nothing_here")
    bad[folder / "nowhere.png"] = "a link to nothing"
    return bad


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _lab() -> Image.Image:
    """Middle grey: L = 50 of 100."""
    bands = [Image.new("L", (24, 16), 128)] * 3
    return Image.merge("LAB", bands)


def _png16_rgb(file: Path, pixels: Pixels) -> None:
    """Pillow reads them but does not write them."""
    height, width, _ = pixels.shape
    deep = pixels.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    file.write_bytes(_png_of(header, zlib.compress(rows)))


def _tiff(bits: int, kind: int) -> bytes:
    """4 x 4 pixels, all 0. `kind`: 1 unsigned, 2 signed, 3 floating-point."""
    pixels = bytes(4 * 4 * bits // 8)
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: len(pixels), 339: kind}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<4sI", b"II*\0", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + fields + bytes(4)


def _png(width: int, height: int) -> bytes:
    return _png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 100))


def _png_of(header: bytes, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
