"""After training: the head that is best on validation, as trained or in closed form, at the right temperature.

N: samples, V: views of each, D: features.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch import distributed, nn

from thaw.caching.data_module import CachedDataModule
from thaw.distributed.agree import from_first, gather_on_first
from thaw.distributed.sharded import is_sharded
from thaw.finetuning.closed_form import LinearHead
from thaw.training.head_choice import HeadResult, candidates, choose, results_of
from thaw.training.module import FineTuningModule
from thaw.types import Batch, BatchRequest, Indices

log = logging.getLogger(__name__)

AUGMENTED_VIEWS = 3
"""Augmented versions of each training image whose features count, beside the image as in evaluation."""
MOST_ROWS = 20_000
"""Features that a closed form is fitted to, over all training samples and their views."""
MOST_FEATURES = 4096
"""Largest D: the covariance has D x D numbers."""

Features = NDArray[np.float32]


def refit_head(trainer: Trainer, module: FineTuningModule, loaders: LightningDataModule) -> list[HeadResult]:
    """Replace the trained head by one in closed form, or by the mean of both, where validation says so.

    The head that is kept, also the trained one, is scaled by the temperature that fits validation. Nothing is drawn at
    random, and a run that is resumed after training ends with the same head. Collective: call on every rank.

    Returns:
        All candidates, the trained head first; none if there was no choice.
    """
    layer = linear_layer(module.network.head)
    if layer is None or not _has_choice(trainer, module, layer, loaders):
        return []
    data: Any = loaders
    train = _by_length(evenly_spaced(data.parts["train"], data.targets, MOST_ROWS), data.lengths)
    val = _by_length(data.parts["val"], data.lengths)
    if len(np.unique(data.targets[train])) < len(module.class_names):
        return []
    num_augmented = min(AUGMENTED_VIEWS, MOST_ROWS // len(train) - 1) if data.augments else 0
    module.to(trainer.strategy.root_device).eval()  # after training, Lightning moves it to the CPU
    train_features = _features(trainer, module, data, "train", train, [None, *range(1, num_augmented + 1)])
    val_features = _features(trainer, module, data, "val", val, [None])
    decision: tuple[list[HeadResult], LinearHead | None] = ([], None)
    if train_features is not None and val_features is not None:  # on the first process
        trained = LinearHead(*(values.detach().double().cpu().numpy() for values in (layer.weight, layer.bias)))
        found = candidates(trained, train_features, data.targets[train], val_features[0], data.targets[val])
        best = choose(found)
        decision = (results_of(found, best), best.head)
    results, head = from_first(decision)
    if head is not None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(head.weight))
            layer.bias.copy_(torch.from_numpy(head.bias))
    return results


def linear_layer(head: nn.Module) -> nn.Linear | None:
    """The layer of a head that is one linear layer with a bias, with or without dropout; None for any other head."""
    parts = list(head.modules())
    layers = [part for part in parts if type(part) is nn.Linear]
    is_plain = all(type(part) in (nn.Linear, nn.Sequential, nn.Dropout, nn.Identity) for part in parts)
    return layers[0] if is_plain and len(layers) == 1 and layers[0].bias is not None else None


def evenly_spaced(indices: Indices, targets: NDArray[np.int64], most: int) -> Indices:
    """At most so many of some samples, of every class in proportion, sorted by class; `targets`: of all samples."""
    ordered = indices[np.argsort(targets[indices], kind="stable")]
    if len(ordered) <= most:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, most).astype(np.int64)]


def _has_choice(trainer: Trainer, module: FineTuningModule, layer: nn.Linear, loaders: Any) -> bool:
    """Whether a head in closed form could take the place of a linear one. Says why not, if nothing else shows it."""
    limits = (trainer.limit_train_batches, trainer.limit_val_batches)
    whole_epochs = all(isinstance(limit, float) and limit == 1 for limit in limits)
    fits = module.task.gives_logits and module.takes_activations and module.network.num_features <= MOST_FEATURES
    precise = layer.weight.dtype in (torch.float32, torch.float64)  # weights in 16 bits would be another head
    if trainer.world_size > 1 and not distributed.is_initialized():  # ddp_spawn: its processes have ended
        return False
    if is_sharded(trainer.strategy) or not len(loaders.parts["val"]):
        return False
    if not (whole_epochs and fits and precise):
        return False
    if module.task.class_weights is not None or loaders.balance != "none":
        log.info("head: as trained, because the classes are weighed (data.balance, task.class_weights)")
        return False
    return True


def _by_length(indices: Indices, lengths: NDArray[np.int64] | None) -> Indices:
    """Texts sorted by length, so that those of a batch have similar ones; images as they are."""
    return indices if lengths is None else indices[np.argsort(lengths[indices], kind="stable")]


def _features(
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
            features = module.network.features(moved.inputs, moved.start)
        computed.append((number, features.float().cpu().numpy()))
    shares = gather_on_first(computed)
    if not trainer.is_global_zero:
        return None
    rows = [features for _, features in sorted((pair for share in shares for pair in share), key=lambda pair: pair[0])]
    return np.concatenate(rows).reshape(len(views), len(indices), -1)


def _batches(data: Any, split: str, requests: Sequence[BatchRequest], views: Sequence[int | None]) -> Iterator[Batch]:
    """The batches of some requests: cached features of a backbone that was never trained, or raw samples."""
    if isinstance(data, CachedDataModule) and data.plan.never_trained() == data.prefix.last:
        found = ((view, data.prefix.activations(split, view, data.prefix.last)) for view in views)
        kept = {view: activations for view, activations in found if activations is not None}
        if len(kept) == len(views):
            return chain.from_iterable(kept[request.view].batches([request]) for request in requests)
    return iter(data.raw_loader(split, requests))
