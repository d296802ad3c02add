"""The output of a stage for many samples: how it is laid out as one array, and how batches are gathered from it.

N samples, B of them in a batch. Of texts only the tokens are kept, one row each; a batch is padded on the right to T.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thaw.caching.entry import CacheEntry
from thaw.errors import UserError
from thaw.types import Batch, BatchRequest, TokenStates

ARRAY = "output"


def states_of(output: Tensor | TokenStates) -> Tensor:
    return output.states if isinstance(output, TokenStates) else output


def rows_of(output: Tensor | TokenStates, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """As it is written: (B, ...), images with their channels last where they are so in memory; texts (tokens, D).

    Raises UserError where numbers are too large for `dtype`.
    """
    if isinstance(output, TokenStates):
        rows = output.states[output.mask.bool()]
    else:
        rows = output.permute(0, 2, 3, 1) if channels_last else output
    converted = rows.to("cpu", dtype)
    if dtype == torch.float16 and rows.isfinite().all() and not converted.isfinite().all():
        raise UserError(
            f"caching.dtype=float16 holds numbers up to 65,504, and there are some of {rows.abs().max():,.0f}: type "
            f"caching.dtype=bfloat16"
        )
    return converted


def is_channels_last(output: Tensor | TokenStates) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last)


class Activations:
    """What entered the file in the order of `samples`, as the batches that a loader yields.

    `targets`: of all samples of the data. `lengths`: of the tokens of each of `samples`, and `width`, from the lengths
    in a batch to T, where they are texts.
    """

    def __init__(
        self,
        kept: CacheEntry,
        start: int,
        samples: NDArray[np.int64],
        targets: NDArray[np.int64],
        lengths: NDArray[np.int64] | None,
        width: Callable[[NDArray[np.int64]], int],
    ):
        self.rows, self.start, self.width = kept.arrays[ARRAY], start, width
        self.computed = getattr(torch, kept.about["computed"])
        self.channels_last = kept.about["channels_last"]
        self.targets = torch.from_numpy(targets)
        self.place = torch.full((len(targets),), -1)
        self.place[torch.from_numpy(samples)] = torch.arange(len(samples))
        self.lengths = lengths
        self.starts = None if lengths is None else np.concatenate([[0], np.cumsum(lengths)])

    def batches(self, keys: Iterable[BatchRequest]) -> Iterator[Batch]:
        for key in keys:
            index = torch.tensor(key.indices)
            places = self.place[index]
            inputs = self._images(places) if self.lengths is None else self._texts(places.numpy())
            yield Batch(inputs, self.targets[index], index, self.start, key.view, key.total)

    def _images(self, places: Tensor) -> Tensor:
        rows = self.rows.index_select(0, places).to(self.computed)
        return rows.permute(0, 3, 1, 2) if self.channels_last else rows

    def _texts(self, places: NDArray[np.int64]) -> Any:
        assert self.lengths is not None
        assert self.starts is not None
        lengths = self.lengths[places]
        position = np.arange(self.width(lengths))
        mask = position < lengths[:, None]
        rows = torch.from_numpy((self.starts[places][:, None] + position)[mask])
        states = torch.zeros(*mask.shape, self.rows.shape[1], dtype=self.computed)
        states[torch.from_numpy(mask)] = self.rows.index_select(0, rows).to(self.computed)
        return TokenStates(states, torch.from_numpy(mask.astype(np.int64)))
