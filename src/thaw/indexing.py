import torch
from torch import Tensor


def last_valid(states: Tensor, lengths: Tensor) -> Tensor:
    index = (lengths - 1).reshape(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1)
