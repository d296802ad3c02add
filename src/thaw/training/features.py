"""Features of samples, as the network gives them in evaluation.

N: samples, V: views of each, D: features.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray

from thaw.caching.data_module import CachedDataModule
from thaw.distributed.agree import gather_on_first
from thaw.training.module import FineTuningModule
from thaw.types import Batch, BatchRequest, Indices

Features = NDArray[np.float32]


def evenly_spaced(indices: Indices, targets: NDArray[np.int64], most: int) -> Indices:
    """At most so many of some samples, of every class in proportion, sorted by class; `targets`: of all samples."""
    ordered = indices[np.argsort(targets[indices], kind="stable")]
    if len(ordered) <= most:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, most).astype(np.int64)]


def by_length(indices: Indices, lengths: NDArray[np.int64] | None) -> Indices:
    """Texts sorted by length, so that those of a batch have similar ones; images as they are."""
    return indices if lengths is None else indices[np.argsort(lengths[indices], kind="stable")]


def features(
    trainer: Trainer, module: FineTuningModule, data: Any, split: str, indices: Indices, views: Sequence[int | None]
) -> Features | None:
    """Features (V, N, D) of views of some samples, on the first process; None on the others.

    Each process computes its share of the batches. Collective: call on every rank.
    """
    starts = range(0, len(indices), data.batch_size)
    requests = [BatchRequest(indices[i : i + data.batch_size].tolist(), view) for view in views for i in starts]
    numbers = range(len(requests))[trainer.global_rank :: trainer.world_size]
    computed: list[tuple[int, Features]] = []
    for number, batch in zip(numbers, _batches(data, split, [requests[i] for i in numbers], views), strict=True):
        moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            values = module.network.features(moved.inputs, moved.start)
        computed.append((number, values.float().cpu().numpy()))
    shares = gather_on_first(computed)
    if not trainer.is_global_zero:
        return None
    rows = [values for _, values in sorted((pair for share in shares for pair in share), key=lambda pair: pair[0])]
    return np.concatenate(rows).reshape(len(views), len(indices), -1)


def _batches(data: Any, split: str, requests: Sequence[BatchRequest], views: Sequence[int | None]) -> Iterator[Batch]:
    """The batches of some requests: cached features of a backbone that was never trained, or raw samples."""
    if isinstance(data, CachedDataModule) and data.plan.never_trained() == data.prefix.last:
        found = ((view, data.prefix.activations(split, view, data.prefix.last)) for view in views)
        kept = {view: activations for view, activations in found if activations is not None}
        if len(kept) == len(views):
            return chain.from_iterable(kept[request.view].batches([request]) for request in requests)
    return iter(data.raw_loader(split, requests))
