"""Between the stages of a text network, and from the hidden states of its tokens to the features of a text.

B texts, T tokens of the longest, D wide. Texts are padded on the right.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.indexing import last_valid

POOLINGS = ("cls", "mean", "last")


class TokenStates(NamedTuple):
    """What one stage hands to the next."""

    states: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T), 1 for tokens and 0 for padding."""
    calls: tuple["Calls", ...] | None = None
    """What the network hands to each layer beside the states; None where a batch enters in the middle of it."""


Calls = tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...]
"""Of one layer: positional arguments and keywords for each time that it is called."""


class Pool(nn.Module):
    """The last norm, where the network has one, and then: `cls`, the first token; `mean`, of all valid tokens; `last`,
    the last valid token. Hidden -> (B, D)."""

    def __init__(self, pooling: str, norm: nn.Module | None = None):
        super().__init__()
        if pooling not in POOLINGS:
            raise UserError(f"backbone.pooling is {', '.join(POOLINGS)}, not '{pooling}'")
        self.pooling, self.norm = pooling, norm or nn.Identity()

    def forward(self, hidden: TokenStates) -> Tensor:
        states, mask = self.norm(hidden.states), hidden.mask
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return last_valid(states, mask.sum(dim=1))
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
