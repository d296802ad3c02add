"""The recurrent network behind `backbone=gru`. B texts, T tokens of the longest, D wide; padded on the right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from thaw.models.stages import Stages
from thaw.models.vocabulary import PAD_ID, SPECIAL

EMBEDDING_STD = 0.1
"""Standard deviation of new vectors. Torch's default of 1 cost 2 points of validation accuracy on TREC."""


class GRUConfig(NamedTuple):
    """Facts of a `GRUNetwork`, named as in Hugging Face's configurations."""

    vocab_size: int
    pad_token_id: int = PAD_ID


class GRUOutput(NamedTuple):
    """Result of `GRUNetwork`, named as in Hugging Face's networks."""

    last_hidden_state: Tensor
    """(B, T, 2 * hidden_size), zeros at padding."""


class GRUNetwork(nn.Module):
    """Word vectors and bidirectional GRU layers, with random weights."""

    def __init__(self, num_tokens: int, embedding_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        self.config = GRUConfig(num_tokens)
        self.embeddings = nn.Embedding(num_tokens, embedding_size, padding_idx=PAD_ID)
        self.dropout = nn.Dropout(dropout)
        widths = [embedding_size, *[2 * hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(GRULayer(width, hidden_size, dropout) for width in widths)
        randomise(self.embeddings, EMBEDDING_STD)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> GRUOutput:
        """Hidden states of `input_ids` and `attention_mask`, both (B, T)."""
        states = self.dropout(self.embeddings(input_ids))
        for layer in self.layers:
            states = layer(states, attention_mask)
        return GRUOutput(states)

    def stages(self) -> Stages:
        """Names of the parameters by stage: `embeddings`, `layer0` ..."""
        layers = {f"layers.{number}": f"layer{number}" for number in range(len(self.layers))}
        stages: dict[str, list[str]] = {name: [] for name in ("embeddings", *layers.values())}
        for name, _ in self.named_parameters():
            stages[layers.get(".".join(name.split(".")[:2]), "embeddings")].append(name)
        return stages


class GRULayer(nn.Module):
    """Gated recurrent units (Cho et al. 2014) in both directions: (B, T, D) -> (B, T, 2 * width), zeros at padding.

    Nothing is packed: for the backward direction each text is reversed within its own length, so that padding comes
    last in both directions. That can be exported for any T, and is 3 times faster on a CPU at T = 256.
    """

    def __init__(self, inputs: int, width: int, dropout: float):
        super().__init__()
        self.forwards = nn.GRU(inputs, width, batch_first=True)
        self.backwards = nn.GRU(inputs, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States of the next layer; `mask` (B, T) is 1 for tokens."""
        order = reversed_order(mask)
        with _any_length():
            forwards, _ = self.forwards(states)
            backwards, _ = self.backwards(_reorder(states, order))
        both = torch.cat([forwards, _reorder(backwards, order)], dim=2)
        return self.dropout(both * mask.unsqueeze(2))


def reversed_order(mask: Tensor) -> Tensor:
    """Positions (B, T) that reverse each text within its length; padding stays where it is."""
    lengths, places = mask.sum(dim=1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    return torch.where(places < lengths, lengths - 1 - places, places)


def _reorder(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order.unsqueeze(2).expand(-1, -1, states.shape[2]))


@contextmanager
def _any_length() -> Iterator[None]:
    """Make torch.export keep nn.GRU as a loop; otherwise it unrolls as many steps as the example has tokens."""
    if not torch.compiler.is_exporting():
        yield
        return
    from torch.export._patches import register_gru_while_loop_decomposition

    with register_gru_while_loop_decomposition():
        yield


def randomise(table: nn.Embedding, std: float) -> None:
    """Fill a table of word vectors with normal numbers, and the rows of special tokens with zeros."""
    nn.init.normal_(table.weight, std=std)
    with torch.no_grad():
        table.weight[: len(SPECIAL)] = 0  # also of unknown words, which carry no meaning
