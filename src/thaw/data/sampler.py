"""Which samples make up which batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from thaw.data.splits import Indices
from thaw.seeds import seed_of


class Key(NamedTuple):
    """What a dataset makes a batch of, and all that it depends on."""

    indices: list[int]
    """Of the samples."""
    view: int | None
    """Which augmented version of them; None: the evaluation's."""


class EpochBatches(Sampler[Key]):
    """Batches of sample indices. Their order is a function of (seed, epoch) alone; Lightning calls `set_epoch`.

    A batch is cut evenly over `world_size` ranks; this sampler yields the share of `rank`. Every sample comes once an
    epoch: instead of a small last batch (which BatchNorm cannot bear) all batches are up to one sample smaller. With
    `balance_targets` (the class of every sample) an epoch is as long but shows every class equally often.
    """

    def __init__(
        self,
        indices: Indices,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        views: bool = False,
        balance_targets: NDArray[np.int64] | None = None,
    ):
        self.indices, self.seed, self.shuffle = indices, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.views, self.balance_targets = views, balance_targets
        self.num_batches = -(-len(indices) // (batch_size * world_size))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Key]:
        order = self.indices
        generator = np.random.default_rng(seed_of(self.seed, self.epoch))
        if self.balance_targets is not None:
            order = balanced(order, self.balance_targets, generator)
        if self.shuffle:
            order = generator.permutation(order)
        for batch in np.array_split(order, self.num_batches):
            share = np.array_split(batch, self.world_size)[self.rank].tolist()
            yield Key(share, self.epoch if self.views else None)


def balanced(indices: Indices, targets: NDArray[np.int64], generator: np.random.Generator) -> Indices:
    """As many indices, from every class equally many (up to one): small classes repeat, none more than once oftener."""
    classes = np.unique(targets[indices])
    shares = np.array_split(np.arange(len(indices)), len(classes))
    drawn = []
    for label, share in zip(generator.permutation(classes), shares, strict=True):
        members = generator.permutation(indices[targets[indices] == label])
        drawn.append(np.resize(members, len(share)))  # over and over again
    return np.concatenate(drawn)
