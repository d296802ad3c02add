"""Which samples make up which batch."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from thaw.errors import UserError
from thaw.seeds import seed_of
from thaw.types import BatchRequest, Indices

POOL = 50
"""So many batches are sorted by length at once."""


class EpochBatches(Sampler[BatchRequest]):
    """Batches of sample indices. Their order is a function of (seed, epoch) alone; Lightning calls `set_epoch`.

    A batch is cut evenly over `world_size` ranks; this sampler yields the share of `rank`, up to `batch_size` samples.
    Every sample comes once an epoch: instead of a small last batch (which BatchNorm cannot bear) all batches are up to
    one sample smaller. With `balance_targets` (the class of every sample) an epoch is as long but shows every class
    equally often. With `lengths` (of every sample) those of similar length share a batch. `view`: which one an epoch
    shows; None: always the evaluation's.
    """

    def __init__(
        self,
        indices: Indices,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        view: Callable[[int], int | None] | None = None,
        balance_targets: NDArray[np.int64] | None = None,
        lengths: NDArray[np.int64] | None = None,
    ):
        self.indices, self.seed, self.shuffle = indices, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.view, self.balance_targets, self.lengths = view, balance_targets, lengths
        self.num_batches = num_batches(len(indices), batch_size, world_size)
        self.epoch = 0
        self.first_batch = 0
        """Where a run that stopped inside this epoch goes on."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchRequest]:
        order = self.indices
        generator = np.random.default_rng(seed_of(self.seed, self.epoch))
        if self.balance_targets is not None:
            order = balanced(order, self.balance_targets, generator)
        if self.shuffle:
            order = generator.permutation(order)
        if self.lengths is None:
            batches = np.array_split(order, self.num_batches)
        else:
            batches = of_similar_length(order, self.lengths, self.num_batches, generator if self.shuffle else None)
        view = None if self.view is None else self.view(self.epoch)
        for batch in batches[self.first_batch :]:
            share = np.array_split(batch, self.world_size)[self.rank].tolist()
            yield BatchRequest(share, view, len(batch))


def num_batches(samples: int, batch_size: int, world_size: int) -> int:
    """As few as there may be, none with more than `batch_size` samples for each process. But where a process would have
    none in a batch, batches are larger by a few."""
    fewest = -(-samples // (batch_size * world_size))
    return min(fewest, max(samples // world_size, 1))


def process_batch_size(batch_size: int, global_batch_size: int | None, world_size: int) -> int:
    """Samples of a batch for each process. Raises UserError where `global_batch_size` cannot be shared out evenly."""
    if global_batch_size is None:
        return batch_size
    if global_batch_size % world_size == 0 and global_batch_size > 0:
        return global_batch_size // world_size
    can = [number for number in range(1, global_batch_size + 1) if global_batch_size % number == 0]
    below = global_batch_size // world_size * world_size
    near = " or ".join(str(size) for size in (below, below + world_size) if size > 0)
    raise UserError(
        f"data.global_batch_size={global_batch_size} cannot be shared out evenly among {world_size} processes: type "
        f"data.global_batch_size={near}" + (f", or take {', '.join(map(str, can))} processes" if can else "")
    )


def require_shares(parts: Mapping[str, Indices], world_size: int) -> None:
    """Raises UserError where a split has fewer samples than there are processes."""
    for name, samples in parts.items():
        if 0 < len(samples) < world_size:
            raise UserError(
                f"the {name} split has {len(samples)} samples for {world_size} processes, and each needs one: take "
                f"trainer.devices={len(samples)} or fewer, or a larger {name} split"
            )


def balanced(indices: Indices, targets: NDArray[np.int64], generator: np.random.Generator) -> Indices:
    """As many indices, from every class equally many (up to one): small classes repeat, none more than once oftener."""
    classes = np.unique(targets[indices])
    shares = np.array_split(np.arange(len(indices)), len(classes))
    drawn = []
    for label, share in zip(generator.permutation(classes), shares, strict=True):
        members = generator.permutation(indices[targets[indices] == label])
        drawn.append(np.resize(members, len(share)))  # over and over again
    return np.concatenate(drawn)


def of_similar_length(
    order: Indices, lengths: NDArray[np.int64], num_batches: int, generator: np.random.Generator | None
) -> list[Indices]:
    """`order` as batches for which little padding is needed; without a `generator` sorted by length throughout.

    With one, samples are sorted within every POOL batches only, and the batches then shuffled: who meets whom still
    changes from epoch to epoch.
    """
    pools = 1 if generator is None else -(-num_batches // POOL)
    by_length = [pool[np.argsort(lengths[pool], kind="stable")] for pool in np.array_split(order, pools)]
    batches = np.array_split(np.concatenate(by_length), num_batches)
    return batches if generator is None else [batches[i] for i in generator.permutation(num_batches)]
