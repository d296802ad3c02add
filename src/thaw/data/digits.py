"""scikit-learn's handwritten digits. Copy this file to bring data of your own; `Source` says what a source may have."""

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits


class Digits:
    """Source of 1,797 real images of 8 x 8 pixels, the test part of the UCI set (Alpaydin & Kaynak 1998)."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8); ink is 0..16 in the file
        self.targets = digits.target
        self.class_names = [str(name) for name in digits.target_names]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self.images[index], self.targets[index]
