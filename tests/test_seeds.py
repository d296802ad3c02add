import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from thaw.seeds import seed_all, seed_of

NUMBERS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4)


@given(NUMBERS, st.data())
def test_a_seed_is_a_function_of_its_numbers_and_each_of_them_counts(numbers: list[int], data: st.DataObject) -> None:
    seed = seed_of(*numbers)
    assert 0 <= seed < 2**63
    assert seed == seed_of(*numbers)
    place = data.draw(st.integers(0, len(numbers) - 1))
    other = [*numbers]
    other[place] = data.draw(st.integers(0, 2**32 - 1).filter(lambda number: number != numbers[place]))
    assert seed_of(*other) != seed
    if len({*numbers}) > 1:
        assert seed_of(*sorted(numbers)) != seed or numbers == sorted(numbers)


def test_a_step_is_seeded_for_all_that_a_user_may_draw_from() -> None:
    def draw() -> list[float]:
        seed_all(2**62 + 1, "cpu")
        return [random.random(), np.random.rand(), torch.rand(()).item()]

    first = draw()
    assert draw() == first
