"""Which samples make up which batch: pure functions of a seed and an epoch."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from thaw.errors import UserError
from thaw.seeds import seed_of
from thaw.types import BatchRequest, Indices

POOL_BATCHES = 50
"""Number of batches whose samples are sorted by length together."""


class EpochBatches(Sampler[BatchRequest]):
    """Yields the batches of an epoch for one process; their order depends on (seed, epoch) alone.

    Every batch is cut evenly over the processes. All batches of an epoch differ by at most one sample, because a small
    last batch would spoil the statistics of BatchNorm. Lightning calls `set_epoch`.

    Args:
        indices: Indices of the samples to show, each once an epoch.
        batch_size: Most samples of a batch for each process.
        seed: Seed of the order.
        shuffle: Whether the order changes from epoch to epoch.
        rank: Number of this process.
        world_size: Number of processes.
        view: Function from an epoch to its view (augmented version); None for evaluation.
        balance_targets: Class index of every sample, to show each class equally often in an epoch of the same length.
        lengths: Length of every sample, to put samples of similar length into a batch.
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
        """Batch to begin at, for a run that continues inside an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose batches are yielded next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchRequest]:
        order = self.indices
        generator = np.random.default_rng(seed_of(self.seed, self.epoch))
        if self.balance_targets is not None:
            order = draw_balanced(order, self.balance_targets, generator)
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
    """Return the smallest number of batches with at most `batch_size` samples for each process.

    If a process would have no sample in some batch, there are fewer batches, and they are larger.
    """
    fewest = -(-samples // (batch_size * world_size))
    return min(fewest, max(samples // world_size, 1))


def process_batch_size(batch_size: int, global_batch_size: int | None, world_size: int) -> int:
    """Return the samples of a batch for each process: a share of `global_batch_size`, or `batch_size` if that is None.

    Raises:
        UserError: if `global_batch_size` cannot be divided evenly among the processes.
    """
    if global_batch_size is None:
        return batch_size
    if global_batch_size % world_size == 0 and global_batch_size > 0:
        return global_batch_size // world_size
    divisors = [number for number in range(1, global_batch_size + 1) if global_batch_size % number == 0]
    below = global_batch_size // world_size * world_size
    near = " or ".join(str(size) for size in (below, below + world_size) if size > 0)
    raise UserError(
        f"data.global_batch_size={global_batch_size} cannot be divided evenly among {world_size} processes: type "
        f"data.global_batch_size={near}" + (f", or take {', '.join(map(str, divisors))} processes" if divisors else "")
    )


def require_shares(parts: Mapping[str, Indices], world_size: int) -> None:
    """Raise UserError if a split has fewer samples than there are processes."""
    for name, samples in parts.items():
        if 0 < len(samples) < world_size:
            raise UserError(
                f"the {name} split has {len(samples)} samples for {world_size} processes, and each needs one: take "
                f"trainer.devices={len(samples)} or fewer, or a larger {name} split"
            )


def draw_balanced(indices: Indices, targets: NDArray[np.int64], generator: np.random.Generator) -> Indices:
    """Draw as many indices as given, but equally many of each class.

    Class counts differ by at most one. Small classes are oversampled: each sample is repeated as often as any other of
    its class, or once more. Of large classes, some samples are left out.
    """
    classes = np.unique(targets[indices])
    shares = np.array_split(np.arange(len(indices)), len(classes))
    drawn = []
    for label, share in zip(generator.permutation(classes), shares, strict=True):
        members = generator.permutation(indices[targets[indices] == label])
        drawn.append(np.resize(members, len(share)))  # np.resize repeats them
    return np.concatenate(drawn)


def of_similar_length(
    order: Indices, lengths: NDArray[np.int64], num_batches: int, generator: np.random.Generator | None
) -> list[Indices]:
    """Cut `order` into batches of samples of similar length, which need little padding.

    Args:
        order: Sample indices, shuffled before in training.
        lengths: Length of every sample.
        num_batches: Number of batches.
        generator: Shuffles the batches. Samples are then sorted by length only within every `POOL_BATCHES` batches, so
            that the samples of a batch still change from epoch to epoch. None: all samples are sorted by length.
    """
    pools = 1 if generator is None else -(-num_batches // POOL_BATCHES)
    by_length = [pool[np.argsort(lengths[pool], kind="stable")] for pool in np.array_split(order, pools)]
    batches = np.array_split(np.concatenate(by_length), num_batches)
    return batches if generator is None else [batches[i] for i in generator.permutation(num_batches)]
