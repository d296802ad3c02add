from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.sampler import EpochBatches, balanced


def batches(epoch: int = 0, **choices: int) -> list[list[int]]:
    options = {"batch_size": 8, "seed": 0, "shuffle": True, **choices}
    sampler = EpochBatches(np.arange(100, 133), **options)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return [key.indices for key in sampler]


def test_each_sample_comes_once_an_epoch_and_no_batch_is_small() -> None:
    assert sorted(chain(*batches())) == list(range(100, 133))
    assert [len(batch) for batch in batches()] == [7, 7, 7, 6, 6]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert batches(epoch=3) == batches(epoch=3)
    assert batches(epoch=3) != batches(epoch=4)
    assert batches(epoch=3) != batches(epoch=3, seed=1)
    assert list(chain(*batches(shuffle=False))) == list(range(100, 133))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_out_the_batches_of_one_process(world_size: int) -> None:
    shares = [batches(batch_size=8 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = batches(batch_size=(8 // world_size) * world_size)
    assert [sorted(chain(*parts)) for parts in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


@given(
    num_samples=st.integers(4, 300),
    batch_size=st.integers(2, 9),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
    lengths=st.one_of(st.none(), st.integers(0, 99)),
)
def test_any_epoch_shows_each_sample_once_whatever_the_number_of_ranks(
    num_samples: int, batch_size: int, seed: int, epoch: int, shuffle: bool, lengths: int | None
) -> None:
    samples = np.arange(num_samples) + 7
    words = None if lengths is None else np.random.default_rng(lengths).integers(1, 30, num_samples + 7)

    def of_ranks(world_size: int) -> list[list[list[int]]]:
        """By batch and rank."""
        shares = []
        for rank in range(world_size):
            share = EpochBatches(samples, batch_size * 4 // world_size, seed, shuffle, rank, world_size, lengths=words)
            share.set_epoch(epoch)
            shares.append([key.indices for key in share])
            assert len(shares[-1]) == len(share)
            share.set_epoch(epoch + 1)
            list(share)
            share.set_epoch(epoch)
            assert [key.indices for key in share] == shares[-1], "whatever was shown before"
        return [list(batch) for batch in zip(*shares, strict=True)]

    whole = [batch for (batch,) in of_ranks(1)]
    assert sorted(chain(*whole)) == samples.tolist()
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    assert max(map(len, whole)) <= batch_size * 4
    for world_size in (2, 4):
        batches = of_ranks(world_size)
        assert [list(chain(*shares)) for shares in batches] == whole
        assert all(len(shares[0]) - len(shares[-1]) <= 1 for shares in batches)
        assert all(shares[-1] for shares in batches), "no rank goes without"


def test_an_epoch_shows_the_view_that_is_asked_for_and_else_none() -> None:
    for view, expected in ((lambda epoch: epoch % 2, 1), (None, None)):
        sampler = EpochBatches(np.arange(9), 4, seed=0, shuffle=True, view=view)
        sampler.set_epoch(3)
        assert {key.view for key in sampler} == {expected}


def test_balanced_shows_every_class_equally_often_and_no_sample_neglects_another() -> None:
    targets = np.array([0] * 90 + [1] * 7 + [2] * 3)
    drawn = balanced(np.arange(100), targets, np.random.default_rng(0))
    assert sorted(np.bincount(targets[drawn])) == [33, 33, 34]
    times = np.bincount(drawn, minlength=100)
    for label in range(3):
        assert times[targets == label].max() - times[targets == label].min() <= 1
    sampler = EpochBatches(np.arange(100), 10, seed=0, shuffle=True, balance_targets=targets)
    first, second = (list(sampler) for _ in range(2))
    assert first == second
    assert min(len({*targets[key.indices]}) for key in first) > 1, "shuffled"
