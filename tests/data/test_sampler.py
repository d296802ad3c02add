from itertools import chain

import numpy as np
import pytest

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
