"""Pick one element of every row by a single gather, which can be exported. `B` batch, `T` tokens, `D` features."""

import torch
from torch import Tensor


def last_valid(states: Tensor, lengths: Tensor) -> Tensor:
    """The last valid vector of each right-padded sequence: (B, T, D), lengths (B,) each from 1 to T -> (B, D)."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1)


def diagonals(matrices: Tensor) -> Tensor:
    """The main diagonal of each matrix, square or not: (B, R, C) -> (B, min(R, C))."""
    batch, rows, columns = matrices.shape
    index = torch.arange(min(rows, columns), device=matrices.device)[None, :, None].expand(batch, -1, 1)
    return matrices.gather(2, index).squeeze(2)
