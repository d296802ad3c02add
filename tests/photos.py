"""Photographs made up on the spot: a folder a class, and a table of the same files."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def photos(folder: Path, per_class: int = 8, size: tuple[int, int] = (40, 30)) -> Path:
    """`folder`/photos/<colour>/<number>.png, each a noisy colour, and photos/labels.csv beside them."""
    root = folder / "photos"
    generator = np.random.default_rng(0)
    rows = []
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            noise = generator.integers(-40, 40, (size[1], size[0], 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
            rows.append({"path": f"{name}/{number}.png", "label": name})
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["path", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return root
