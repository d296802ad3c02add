"""The number that says which samples were trained on, in which order."""

import numpy as np

from thaw.data.samples import Sample
from thaw.training.sample_order import batch_hash, sample_hash

SAMPLES = np.array([sample_hash(Sample(f"{number}.png")) for number in range(8)], np.uint64)


def of(*batches: list[int], epoch: int = 0, view: int | None = None) -> int:
    return sum(batch_hash(SAMPLES[batch], epoch, number, view) for number, batch in enumerate(batches)) % 2**64


def test_the_number_tells_orders_epochs_and_views_apart_and_not_how_a_batch_is_shared() -> None:
    right = of([0, 1, 2, 3], [4, 5, 6, 7])
    assert right == of([0, 1, 2, 3], [4, 5, 6, 7])
    assert right == (of([1, 0], [4, 5]) + of([3, 2], [7, 6])) % 2**64, "two processes"
    others = [
        of([4, 5, 6, 7], [0, 1, 2, 3]),
        of([0, 1, 2, 4], [3, 5, 6, 7]),
        of([0, 1, 2, 3], [4, 5, 6]),
        of([0, 1, 2, 3], [4, 5, 6, 7, 7]),
        of([0, 1, 2, 3], [4, 5, 6, 7], epoch=1),
        of([0, 1, 2, 3], [4, 5, 6, 7], view=0),
        of([0, 1, 2, 3], [4, 5, 6, 7], view=1),
    ]
    assert len({right, *others}) == 1 + len(others)


def test_a_sample_is_known_by_name_and_content() -> None:
    known = {sample_hash(Sample(*one)) for one in [("a", ""), ("b", ""), ("a", "1"), ("a1", "")]}
    assert len(known) == 4
