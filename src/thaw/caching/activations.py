"""How the activations of many samples are laid out as one array, and how batches are gathered from it.

N samples, B of them in a batch. Texts are stored without padding, one row per token; a batch of them is padded on the
right to T tokens.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thaw.caching.entry import CacheEntry
from thaw.errors import UserError
from thaw.types import Batch, BatchRequest, Indices, TokenStates

ARRAY = "output"
"""Name of the array in a cache entry."""


def to_rows(output: Tensor | TokenStates, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Activations as the cache stores them: images (B, H, W, C) if `channels_last`, texts (tokens, D), else (B, ...).

    They are on the CPU and have the type `dtype`.

    Raises:
        UserError: a number is too large for `dtype`.
    """
    if isinstance(output, TokenStates):
        rows = output.states[output.mask.bool()]
    else:
        rows = output.permute(0, 2, 3, 1) if channels_last else output
    converted = rows.to("cpu", dtype)
    if dtype == torch.float16 and rows.isfinite().all() and not converted.isfinite().all():
        raise UserError(
            f"caching.dtype=float16 holds numbers up to 65,504, and activations reach {rows.abs().max():,.0f}: type "
            f"caching.dtype=bfloat16"
        )
    return converted


def is_channels_last(output: Tensor | TokenStates) -> bool:
    """Whether activations are images with their channels last in memory."""
    return isinstance(output, Tensor) and output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last)


class Activations:
    """Serves cached activations as batches; row i belongs to `indices[i]`.

    Args:
        entry: the cache entry that holds the activations.
        start: number of the stage that the activations enter.
        indices: sample indices, in the order of the rows.
        targets: targets of all samples of the data, (N, ...).
        lengths: tokens of each of `indices`, if the samples are texts.
        width: function from the lengths (B,) of the texts in a batch to T, the length that they are padded to.
    """

    def __init__(
        self,
        entry: CacheEntry,
        start: int,
        indices: Indices,
        targets: Tensor,
        lengths: NDArray[np.int64] | None,
        width: Callable[[NDArray[np.int64]], int],
    ):
        self.rows, self.start, self.width = entry.arrays[ARRAY], start, width
        self.dtype = getattr(torch, entry.about["computed"])
        self.channels_last = entry.about["channels_last"]
        self.targets = targets
        self.position = torch.full((len(targets),), -1)
        self.position[torch.from_numpy(indices)] = torch.arange(len(indices))
        self.lengths = lengths
        self.first_rows = None if lengths is None else np.concatenate([[0], np.cumsum(lengths)])

    def batches(self, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
        """Yield one batch of activations for each request."""
        for request in requests:
            index = torch.tensor(request.indices)
            positions = self.position[index]
            inputs = self._images(positions) if self.lengths is None else self._texts(positions.numpy())
            yield Batch(inputs, self.targets[index], index, self.start, request.view, request.total)

    def _images(self, positions: Tensor) -> Tensor:
        rows = self.rows.index_select(0, positions).to(self.dtype)
        return rows.permute(0, 3, 1, 2) if self.channels_last else rows

    def _texts(self, positions: NDArray[np.int64]) -> Any:
        assert self.lengths is not None
        assert self.first_rows is not None
        lengths = self.lengths[positions]
        token = np.arange(self.width(lengths))
        mask = token < lengths[:, None]
        rows = torch.from_numpy((self.first_rows[positions][:, None] + token)[mask])
        states = torch.zeros(*mask.shape, self.rows.shape[1], dtype=self.dtype)
        states[torch.from_numpy(mask)] = self.rows.index_select(0, rows).to(self.dtype)
        return TokenStates(states, torch.from_numpy(mask.astype(np.int64)))
