"""Pool the hidden states of a text's tokens into its features. B texts, T tokens of the longest, D wide."""

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.indexing import last_valid
from thaw.types import TokenStates

POOLINGS = ("cls", "mean", "last")


class Pool(nn.Module):
    """Pools right-padded token states into features (B, D).

    Args:
        pooling: `cls`, the first token; `mean` of all valid tokens; `last`, the last valid token.

    Raises:
        UserError: `pooling` is none of these.
    """

    def __init__(self, pooling: str):
        super().__init__()
        if pooling not in POOLINGS:
            raise UserError(f"backbone.pooling is {', '.join(POOLINGS)}, not '{pooling}'")
        self.pooling = pooling

    def forward(self, tokens: TokenStates) -> Tensor:
        """Features (B, D)."""
        states, mask = tokens
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return last_valid(states, mask.sum(dim=1))
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
