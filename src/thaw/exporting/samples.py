"""Real images to compare an exported network on, every other one made odd."""

from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from thaw.data.source import Source

UPRIGHT_WHEN_TURNED = 6
"""EXIF orientation: the camera was held on its side."""


def odd_images(data: Source, count: int, folder: Path) -> list[Path]:
    """`count` files of test images (of val where there is no test): as they are, not square, grey, turned by EXIF."""
    if count < 1:
        raise ValueError(f"samples is at least 1, not {count}: an export that was not compared is not believed")
    indices = data.splits.test if len(data.splits.test) else data.splits.val
    files = []
    for number, index in enumerate(islice(cycle(indices.tolist()), count)):
        image, file, exif = data.image(index), folder / f"{number:04}.png", Image.Exif()
        width, height = image.size
        if number % 4 == 1:
            image = image.crop((0, 0, width, max(1, height * 2 // 3)))
        elif number % 4 == 2:
            image = image.convert("L")
        elif number % 4 == 3:
            exif[0x0112] = UPRIGHT_WHEN_TURNED
        image.save(file, exif=exif)
        files.append(file)
    return files
