"""Which learning rates a run has: those that are typed, and else those that suit its kind of network."""

import logging
from dataclasses import fields
from math import sqrt

from omegaconf import DictConfig
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.config.instantiation import target_of
from thaw.errors import UserError
from thaw.finetuning.param_groups import Rates
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
}
"""Keys of `optimizer.rates`, and what they are for."""
LARGE = 25e6
"""Parameters of a network without BatchNorm above which `backbone_lr_scale` of `optimizer.rates` falls with the root of
their number: BERT-base (110 million) then gets about the rates that its authors name."""
HIGHEST_RATE = 1e-3
"""With Adam, pretrained layers without BatchNorm forget what they know, or diverge, at rates above this."""


def kind_of(cfg: DictConfig, backbone: Backbone) -> str:
    """Which of `optimizer.rates` suit the network."""
    if backbone.kind is not None:
        return backbone.kind
    if cfg.init_from is None and from_scratch(cfg):
        return "scratch"
    return "batchnorm" if any(isinstance(module, _BatchNorm) for module in backbone.network.modules()) else "other"


def from_scratch(cfg: DictConfig) -> bool:
    """Whether the backbone has no pretrained weights: by its key `weights`, or by the default of its factory."""
    default = keywords(target_of(cfg.backbone)).get("weights")
    return weights_choice(cfg.backbone.get("weights", "" if default is None else default.default)) is None


def rates(cfg: DictConfig, backbone: Backbone) -> Rates:
    """The learning rates; those that are null follow from the kind of network.

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
    if kind == "other" and cfg.optimizer.backbone_lr_scale is None:
        size = sum(parameter.numel() for parameter in backbone.network.parameters())
        chosen["backbone_lr_scale"] *= min(1.0, sqrt(LARGE / max(size, 1)))
    return Rates(**chosen)


def explained(cfg: DictConfig, backbone: Backbone) -> str:
    """Where the rates come from, for people."""
    typed = [f"optimizer.{key}={cfg.optimizer[key]}" for key in RATE_KEYS if cfg.optimizer[key] is not None]
    kind = kind_of(cfg, backbone)
    words = f"optimizer.rates.{kind}" + (f", for {KINDS[kind]}" if kind in KINDS else "")
    if len(typed) < len(RATE_KEYS):
        typed.append(words)
    return "learning rates: " + "; ".join(typed)


def warn_of_high_rates(cfg: DictConfig, backbone: Backbone) -> None:
    """Warn of rates at which pretrained layers would be lost."""
    chosen = rates(cfg, backbone)
    highest = chosen.at(1)
    if kind_of(cfg, backbone) == "other" and "Adam" in str(cfg.optimizer._target_) and highest > HIGHEST_RATE:
        log.warning(
            "pretrained layers get a rate of %.1e: without BatchNorm they forget what they know, or diverge, above "
            "%.0e. Leave optimizer.lr and optimizer.backbone_lr_scale out, or type optimizer.backbone_lr_scale=%.1g",
            *(highest, HIGHEST_RATE, HIGHEST_RATE / 10 / chosen.lr),
        )
