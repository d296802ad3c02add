"""Which samples make up which batch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from thaw.data.splits import Indices
from thaw.seeds import seed_of


class EpochBatches(Sampler[list[int]]):
    """Batches of sample indices. Their order is a function of (seed, epoch) alone; Lightning calls `set_epoch`.

    A batch is cut evenly over `world_size` ranks; this sampler yields the share of `rank`. Every sample comes once an
    epoch: instead of a small last batch (which BatchNorm cannot bear) all batches are up to one sample smaller.
    """

    def __init__(self, indices: Indices, batch_size: int, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1):
        self.indices, self.seed, self.shuffle = indices, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.num_batches = -(-len(indices) // (batch_size * world_size))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = self.indices
        if self.shuffle:
            order = np.random.default_rng(seed_of(self.seed, self.epoch)).permutation(order)
        for batch in np.array_split(order, self.num_batches):
            yield np.array_split(batch, self.world_size)[self.rank].tolist()
