"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels, in the package, nothing to download."""

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.batch import Batch
from thaw.data.source import Source
from thaw.data.transforms import evaluation_transform


class Digits(Source):
    """Alpaydin & Kaynak 1998, test part of the UCI set. Takes the keywords of `Source`."""

    def __init__(self, **choices: Any):
        digits = load_digits()
        super().__init__(digits.target.astype(np.int64), [str(name) for name in digits.target_names], **choices)
        grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # ink is 0..16 in the source
        self.images = torch.from_numpy(grey).unsqueeze(1)  # (N, 1, 8, 8)

    def dataset(self) -> Dataset[Batch]:
        assert self.input_spec is not None, "use_input_spec comes before the loaders"
        return ImagesInMemory(evaluation_transform(self.input_spec)(self.images), torch.from_numpy(self.targets))


class ImagesInMemory(Dataset[Batch]):
    """Images so small that all of them are kept as the network takes them: (N, C, H, W)."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: list[int]) -> Batch:
        index = torch.tensor(indices)
        return Batch(self.inputs[index], self.targets[index], index)
