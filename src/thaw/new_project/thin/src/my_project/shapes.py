"""Drawn shapes: a data source is a class of single samples, like any Dataset of torch. Put yours in its place."""

import numpy as np
from PIL import Image, ImageDraw


class Shapes:
    """Circles, squares and triangles of any size and place, on noise; sample i is always the same.

    Batches, splits, order, augmentation and normalisation are thaw's.
    """

    def __init__(self, num_samples: int, noise: float):
        self.class_names = ["circle", "square", "triangle"]
        self.targets = [index % len(self.class_names) for index in range(num_samples)]
        self.noise = noise

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        random, label = np.random.default_rng(index), self.targets[index]
        image = Image.new("L", (28, 28))
        radius = random.uniform(5, 10)
        x, y = random.uniform(radius, 28 - radius, size=2)
        if self.class_names[label] == "circle":
            ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=200)
        else:
            sides = 4 if self.class_names[label] == "square" else 3
            ImageDraw.Draw(image).regular_polygon((x, y, radius), sides, random.uniform(0, 360), fill=200)
        noisy = np.asarray(image) + random.normal(0, self.noise, size=(28, 28))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), label
