"""After training: the head that is best on validation, as trained or in closed form, at the right temperature."""

import logging
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from torch import distributed, nn

from thaw.distributed.agree import from_first
from thaw.distributed.sharded import is_sharded
from thaw.finetuning.closed_form import LinearHead
from thaw.training.features import by_length, evenly_spaced, features
from thaw.training.head_choice import HeadResult, candidates, choose, results_of
from thaw.training.module import FineTuningModule

log = logging.getLogger(__name__)

AUGMENTED_VIEWS = 3
"""Augmented versions of each training image whose features count, beside the image as in evaluation."""
MOST_ROWS = 20_000
"""Features that a closed form is fitted to, over all training samples and their views."""
MOST_FEATURES = 4096
"""Largest D: the covariance has D x D numbers."""


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
    train = by_length(evenly_spaced(data.parts["train"], data.targets, MOST_ROWS), data.lengths)
    val = by_length(data.parts["val"], data.lengths)
    if len(np.unique(data.targets[train])) < len(module.class_names):
        return []
    num_augmented = min(AUGMENTED_VIEWS, MOST_ROWS // len(train) - 1) if data.augments else 0
    module.to(trainer.strategy.root_device).eval()  # after training, Lightning moves it to the CPU
    train_features = features(trainer, module, data, "train", train, [None, *range(1, num_augmented + 1)])
    val_features = features(trainer, module, data, "val", val, [None])
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
