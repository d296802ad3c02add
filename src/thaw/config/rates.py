"""Which learning rates a run has: those that are typed, and else those that suit its kind of network."""

import logging
from dataclasses import fields
from math import ceil, prod, sqrt

from omegaconf import DictConfig
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.config.instantiation import target_of
from thaw.data.sampler import num_batches, process_batch_size
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.finetuning.param_groups import Rates
from thaw.finetuning.phase import Plan
from thaw.models.backbone import Backbone
from thaw.models.weights import weights_choice
from thaw.signatures import keywords

log = logging.getLogger(__name__)

RATE_KEYS = tuple(field.name for field in fields(Rates))
GROUP_KEYS = (*RATE_KEYS, "rates", "weight_decay", "lr_by_processes", "fused")
"""Keys of `optimizer` for the parameter groups; all others are arguments of the optimizer."""
KINDS = {
    "batchnorm": "a pretrained network with BatchNorm",
    "other": "a pretrained network without BatchNorm",
    "scratch": "a network from random weights",
    "adapter": "adapters in a pretrained network",
}
"""Keys of `optimizer.rates`, and what they are for."""
LARGE = 25e6
"""Parameters of a network without BatchNorm above which `backbone_lr_scale` of `optimizer.rates` falls with the root of
their number: BERT-base (110 million) then gets about the rates that its authors name."""
HIGHEST_RATE = 1e-3
"""With Adam, pretrained layers without BatchNorm forget what they know, or diverge, at rates above this."""
FEW_STEPS = 50
"""Pretrained layers that train for fewer optimizer steps have rates in proportion: the first steps at a full rate do
harm that the others must mend, and too few are left."""


def kind_of(cfg: DictConfig, backbone: Backbone) -> str:
    """Which of `optimizer.rates` suit the network."""
    if backbone.kind is not None:
        return backbone.kind
    if from_scratch(cfg):
        return "scratch"
    return "batchnorm" if any(isinstance(module, _BatchNorm) for module in backbone.network.modules()) else "other"


def from_scratch(cfg: DictConfig) -> bool:
    """Whether the backbone starts with random weights: `pretrained=false`, or nothing names others."""
    if not cfg.get("pretrained", True):  # folders of earlier versions have no such key
        return True
    if cfg.init_from is not None:
        return False
    default = keywords(target_of(cfg.backbone)).get("weights")
    return weights_choice(cfg.backbone.get("weights", "" if default is None else default.default)) is None


def backbone_steps(cfg: DictConfig, plan: Plan, num_samples: int) -> int:
    """Optimizer steps of the phases in which stages of the backbone train; `num_samples`: of the training split."""
    trains = [plan.frozen_prefix(end - 1) < len(plan.stages) - 1 for end in plan.ends]
    epochs = sum(phase.epochs for phase, some in zip(plan.phases, trains, strict=True) if some)
    world_size = ranks().world_size
    size = process_batch_size(cfg.data.batch_size, cfg.data.get("global_batch_size"), world_size)
    return epochs * ceil(num_batches(num_samples, size, world_size) / cfg.trainer.get("accumulate_grad_batches", 1))


def rates(cfg: DictConfig, backbone: Backbone, steps: int) -> Rates:
    """The learning rates; those that are null follow from the kind of network.

    Args:
        cfg: the configuration.
        backbone: the network.
        steps: see `backbone_steps`; 0 if that is not known.

    Raises:
        UserError: they do not, because `optimizer.rates` lacks it, or keys of the parameter groups are missing.
    """
    if missing := [key for key in GROUP_KEYS if key not in cfg.optimizer]:
        raise UserError(f"optimizer lacks {', '.join(missing)}: let its YAML begin with\ndefaults:\n  - adamw")
    kind = kind_of(cfg, backbone)
    named = cfg.optimizer.rates.get(kind, {})
    chosen = {}
    for key in RATE_KEYS:
        chosen[key] = cfg.optimizer[key] if cfg.optimizer[key] is not None else named.get(key)
        if chosen[key] is None:
            raise UserError(f"optimizer.{key} is null, and optimizer.rates.{kind} has none: type optimizer.{key}=...")
    if cfg.optimizer.backbone_lr_scale is None:
        chosen["backbone_lr_scale"] *= prod(_factors(kind, backbone, steps).values())
    return Rates(**chosen)


def _factors(kind: str, backbone: Backbone, steps: int) -> dict[str, float]:
    """Factors below 1 on the rates of the pretrained layers, by reason."""
    factors = {}
    size = sum(parameter.numel() for parameter in backbone.network.parameters())
    if kind == "other" and size > LARGE:
        factors[f"it has {size / 1e6:.0f} million parameters"] = sqrt(LARGE / size)
    if kind in ("batchnorm", "other") and 0 < steps < FEW_STEPS:
        factors[f"it trains for {steps} steps only"] = steps / FEW_STEPS
    return factors


def explained(cfg: DictConfig, backbone: Backbone, steps: int) -> str:
    """Where the rates come from, for people; `steps`: see `backbone_steps`."""
    typed = [f"optimizer.{key}={cfg.optimizer[key]}" for key in RATE_KEYS if cfg.optimizer[key] is not None]
    kind = kind_of(cfg, backbone)
    words = f"optimizer.rates.{kind}" + (f", for {KINDS[kind]}" if kind in KINDS else "")
    if len(typed) < len(RATE_KEYS):
        typed.append(words)
    if cfg.optimizer.backbone_lr_scale is None:
        factors = _factors(kind, backbone, steps)
        typed += [f"the backbone's x {factor:.2g}, because {reason}" for reason, factor in factors.items()]
    return "learning rates: " + "; ".join(typed)


def warn_of_high_rates(cfg: DictConfig, backbone: Backbone, chosen: Rates) -> None:
    """Warn of rates at which pretrained layers would be lost."""
    highest = chosen.at(1)
    if kind_of(cfg, backbone) == "other" and "Adam" in str(cfg.optimizer._target_) and highest > HIGHEST_RATE:
        log.warning(
            "pretrained layers get a rate of %.1e: without BatchNorm they forget what they know, or diverge, above "
            "%.0e. Leave optimizer.lr and optimizer.backbone_lr_scale out, or type optimizer.backbone_lr_scale=%.1g",
            *(highest, HIGHEST_RATE, HIGHEST_RATE / 10 / chosen.lr),
        )
