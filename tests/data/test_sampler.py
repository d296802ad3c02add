from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.sampler import EpochBatches, draw_balanced, process_batch_size, require_shares


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
    drawn = draw_balanced(np.arange(100), targets, np.random.default_rng(0))
    assert sorted(np.bincount(targets[drawn])) == [33, 33, 34]
    times = np.bincount(drawn, minlength=100)
    for label in range(3):
        assert times[targets == label].max() - times[targets == label].min() <= 1
    sampler = EpochBatches(np.arange(100), 10, seed=0, shuffle=True, balance_targets=targets)
    first, second = (list(sampler) for _ in range(2))
    assert first == second
    assert min(len({*targets[key.indices]}) for key in first) > 1, "shuffled"


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_global_batch_has_the_same_samples_at_the_same_step_on_any_number_of_ranks(shuffle: bool) -> None:
    def steps(world_size: int) -> list[list[int]]:
        size = process_batch_size(8, 12, world_size)
        ranks = [list(_sampler(size, shuffle, rank, world_size)) for rank in range(world_size)]
        assert all(key.total == sum(len(k.indices) for k in step) for step in zip(*ranks, strict=True) for key in step)
        return [list(chain(*(key.indices for key in step))) for step in zip(*ranks, strict=True)]

    assert steps(1) == steps(2) == steps(4)


def _sampler(size: int, shuffle: bool, rank: int, world_size: int) -> EpochBatches:
    sampler = EpochBatches(np.arange(100, 133), size, seed=0, shuffle=shuffle, rank=rank, world_size=world_size)
    sampler.set_epoch(2)
    return sampler


def test_a_global_batch_that_cannot_be_shared_out_is_met_with_what_can() -> None:
    assert process_batch_size(32, None, 3) == 32
    with pytest.raises(
        ValueError, match=r"=64 cannot be .* 3 processes: type data.global_batch_size=63 or 66, or take 1,"
    ):
        process_batch_size(32, 64, 3)
    with pytest.raises(ValueError, match=r"data.global_batch_size=4, or take 1, 2 processes"):
        process_batch_size(32, 2, 4)


def test_no_rank_has_an_empty_share_and_splits_that_are_too_small_are_refused() -> None:
    for samples, size, world_size in ((5, 1, 4), (4, 1, 4), (7, 1, 3), (133, 8, 4)):
        shares = [list(EpochBatches(np.arange(samples), size, 0, True, rank, world_size)) for rank in range(world_size)]
        assert all(key.indices for keys in shares for key in keys)
        assert sorted(i for keys in shares for key in keys for i in key.indices) == list(range(samples))
    require_shares({"train": np.arange(3), "test": np.arange(0)}, 3)
    with pytest.raises(ValueError, match=r"the val split has 3 samples for 4 processes.* trainer.devices=3 or fewer"):
        require_shares({"train": np.arange(9), "val": np.arange(3)}, 4)
