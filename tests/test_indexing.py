from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from thaw.indexing import diagonals, last_valid


def last_by_loop(states: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([sequence[length - 1] for sequence, length in zip(states, lengths.tolist(), strict=True)])


def diagonals_by_loop(matrices: Tensor) -> Tensor:
    batch, rows, columns = matrices.shape
    shorter = min(rows, columns)
    found = matrices.new_empty(batch, shorter)
    for b in range(batch):
        for i in range(shorter):
            found[b, i] = matrices[b, i, i]
    return found


def random_inputs(number: int, ndim: int) -> tuple[Tensor, Tensor]:
    """A tensor of `ndim` axes of 1 to 7, not contiguous in two cases of three, with its gradient; lengths (B,)."""
    generator = torch.Generator().manual_seed(number)
    shape = torch.randint(1, 8, (ndim,), generator=generator).tolist()
    if number % 3 == 0:
        values = torch.randn(shape, generator=generator)
    elif number % 3 == 1:
        values = torch.randn(shape[::-1], generator=generator).permute(*reversed(range(ndim)))
    else:
        values = torch.randn([2 * size for size in shape], generator=generator)[(slice(1, None, 2),) * ndim]
    lengths = torch.randint(1, shape[1] + 1, (shape[0],), generator=generator)
    return values.requires_grad_(), lengths


def assert_same_values_and_gradients(found: Tensor, expected: Tensor, of: Tensor) -> None:
    assert found.shape == expected.shape
    assert torch.equal(found, expected)
    upstream = torch.arange(1.0, found.numel() + 1).view_as(found)  # each element weighs differently
    (one,), (other,) = (torch.autograd.grad(result, of, upstream) for result in (found, expected))
    assert torch.equal(one, other)


@pytest.mark.parametrize("number", range(200))
def test_the_last_valid_vectors_are_those_of_a_loop(number: int) -> None:
    states, lengths = random_inputs(number, 3)
    assert_same_values_and_gradients(last_valid(states, lengths), last_by_loop(states, lengths), states)


@pytest.mark.parametrize("number", range(200))
def test_the_diagonals_are_those_of_a_loop(number: int) -> None:
    matrices, _ = random_inputs(number, 3)
    assert_same_values_and_gradients(diagonals(matrices), diagonals_by_loop(matrices), matrices)


def test_an_empty_batch_gives_an_empty_batch() -> None:
    states = torch.zeros(0, 5, 4, requires_grad=True)
    for found in (last_valid(states, torch.zeros(0, dtype=torch.long)), diagonals(states)):
        assert found.shape == (0, 4)
        (gradient,) = torch.autograd.grad(found, states, torch.zeros(0, 4))
        assert gradient.shape == states.shape


class Calls(nn.Module):
    """Only modules can be exported."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def test_exported_for_one_shape_they_take_others() -> None:
    states, lengths = torch.randn(3, 5, 4), torch.tensor([1, 5, 2])
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")
    # One tuple more than inputs: `forward` has a single argument, *inputs.
    last = export(Calls(last_valid), (states, lengths), dynamic_shapes=(({0: batch, 1: rows}, {0: batch}),)).module()
    diagonal = export(Calls(diagonals), (states,), dynamic_shapes=(({0: batch, 1: rows, 2: columns},),)).module()
    for shape in ((2, 9, 4), (7, 2, 4), (4, 4, 4)):
        states = torch.randn(shape)
        lengths = torch.arange(shape[0]) % shape[1] + 1
        assert torch.equal(last(states, lengths), last_by_loop(states, lengths))
        assert torch.equal(diagonal(states), diagonals_by_loop(states))
