"""Builds objects from the configuration: one function for each part of a run."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from types import MappingProxyType
from typing import Any

import torch
from lightning import LightningDataModule
from omegaconf import DictConfig
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from thaw.caching.data_module import CachedDataModule
from thaw.caching.store import Store
from thaw.config.instantiation import TargetError, call, make, make_callable, make_partial, plain, target_of, without
from thaw.config.overrides import typed_overrides
from thaw.config.rates import GROUP_KEYS, from_scratch, kind_of
from thaw.data.class_labels import ClassLabels
from thaw.data.image_module import ImageDataModule
from thaw.data.labels import Labels
from thaw.data.module import DataModule
from thaw.data.source import Source, gives_texts
from thaw.data.text_module import TextDataModule
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.finetuning.optimizers import build_optimizer
from thaw.finetuning.param_groups import Rates
from thaw.finetuning.phase import Phase, Plan
from thaw.finetuning.schedules import ClosedForm, Schedule, require_factors
from thaw.models.backbone import Backbone
from thaw.models.network import Network
from thaw.models.running import checkpoint_gradients, compile_backbone
from thaw.signatures import keywords, only_accepted
from thaw.tasks.task import Task
from thaw.training.module import FineTuningModule
from thaw.types import ImageSpec, InputSpec

log = logging.getLogger(__name__)

NOTHING: Mapping[str, Any] = MappingProxyType({})
TASK_KEYS = ("metrics", "best", "pictures")
"""Keys of `task` that are no arguments of its class."""
GLYPHS = "thaw.models.glyphs.glyphs"
"""The backbone of a run that names none."""


def data(cfg: DictConfig) -> DataModule:
    """The data module of the source that `cfg.data` names, not yet split.

    Keys that a data module takes are its settings; the others are arguments of the source.

    Raises:
        UserError: nobody takes a key, or one is missing, or the source cannot be used.
    """
    settings = data_settings()
    values = {name: cfg.data[name] for name in settings if name in cfg.data}
    if "_target_" in cfg.data and (same := settings.keys() & keywords(target_of(cfg.data))):
        raise UserError(f"{cfg.data._target_} takes {', '.join(same)}, as the data module does: name it otherwise")
    try:
        labels = target_of(cfg.task).labels if "task" in cfg else ClassLabels
        source = _source(without(cfg.data, settings), labels)
    except TargetError as error:
        raise UserError(f"{error}; other keys of data are {', '.join(settings)}") from None
    kind = TextDataModule if gives_texts(source) else ImageDataModule
    _require_settings(values, kind, cfg.data._target_)
    data_module = kind(source, kind=labels, **values)
    if getattr(data_module, "keeps_decoded", False) and "caching" in cfg and not cfg.caching:
        raise UserError("data.decoded=on keeps images, and caching=off keeps nothing: type caching=on")
    return data_module


def data_settings() -> dict[str, Parameter]:
    """Keys of `data` for the data module, of images or of texts; all others are arguments of the source."""
    settings = {**keywords(ImageDataModule), **keywords(TextDataModule)}
    del settings["source"], settings["kind"]  # the kind of labels follows from the task
    return settings


def _source(node: DictConfig, kind: type[Labels]) -> Source:
    """The source, with such labels if it has a choice. If it downloads, one process of each machine does so first."""
    if "_target_" not in node:
        raise UserError(
            "data names no source: type data=digits (or another of conf/data), or +data._target_=<your class>"
        )
    facts = only_accepted(target_of(node), {"kind": kind})
    if not node.get("download"):
        return make(node, **facts)
    with ranks().first_per_node() as is_first:  # so that processes do not download into the same place
        return make(node, download=is_first, **facts)


def _require_settings(values: Mapping[str, Any], kind: type[DataModule], source: str) -> None:
    """Raise UserError if the data module of this kind does not take one of `values`, or needs another."""
    taken, things = keywords(kind), kind.takes.things
    if foreign := [f"data.{name}" for name in values if name not in taken]:
        raise UserError(f"{', '.join(foreign)}: {source} gives {things}, which have no such setting: leave it out")
    needed = [name for name, parameter in taken.items() if parameter.default is parameter.empty and name != "source"]
    if missing := [name for name in needed if name not in values]:
        raise UserError(
            f"data lacks {', '.join(missing)}: let its YAML begin with\ndefaults:\n  - shared/{things}@_here_"
        )


def backbone(cfg: DictConfig, pretrained: bool = True, **facts: Any) -> Backbone:
    """The backbone; see `BackboneFactory` for what it is called with.

    Args:
        cfg: the configuration.
        pretrained: False if weights are loaded from elsewhere later, or none are needed.
        **facts: what is known of the training texts, or what a run folder recorded of the backbone.

    Raises:
        UserError: a key is wrong, or the target gives something else.
    """
    if not pretrained or from_scratch(cfg):
        facts["weights"] = None
    if not cfg.get("pretrained", True) and "weights" not in keywords(target_of(cfg.backbone)):
        raise UserError(
            f"pretrained=false is for backbones that take `weights`, and {cfg.backbone._target_} does not: leave it out"
        )
    backbone = call(make_partial(cfg.backbone), "backbone", {"texts": (), **facts})
    if not isinstance(backbone, Backbone):
        raise UserError(
            f"backbone._target_={cfg.backbone._target_} gives a {type(backbone).__name__}: it should give a "
            f"thaw.models.backbone.Backbone(network, stages, num_features, input_spec)"
        )
    return backbone


def require_reader(cfg: DictConfig, data: DataModule) -> None:
    """Refuse photographs for the backbone of the package, which reads letters, unless it was asked for by name.

    Raises:
        UserError: nobody typed `backbone=`. A configuration that was composed in Python is only warned of.
    """
    typed = typed_overrides()
    asked_for = any(override.lstrip("+").startswith(("backbone=", "backbone._target_=")) for override in typed)
    if cfg.backbone.get("_target_") != GLYPHS or asked_for or not isinstance(data, ImageDataModule):
        return
    if (kind := data.kind_of_photographs()) is None:
        return
    text = (
        f"these images are {kind}, and no backbone is named: the default one has learnt to read small grey letters and "
        "digits. Type one that was trained on photographs,\n"
        "  backbone=torchvision backbone.name=resnet18\n"
        '  backbone=timm backbone.name=convnextv2_atto.fcmae_ft_in1k   (pip install -e ".[timm]")\n'
        "or backbone=glyphs, if it is to read them all the same"
    )
    if typed:
        raise UserError(text)
    log.warning(text)


def takes_texts(cfg: DictConfig) -> bool:
    """Whether the backbone learns its vocabulary from the training texts."""
    return "texts" in keywords(target_of(cfg.backbone))


def adapted(adapter: DictConfig, backbone: Backbone) -> Backbone:
    """The backbone with what `adapter` puts into it, in place. Raises UserError if its target gives something else."""
    result = call(make_partial(adapter), "adapter", {"backbone": backbone})
    if not isinstance(result, Backbone) or result.adapter is None:
        raise UserError(
            f"adapter._target_={adapter._target_} gives a {type(result).__name__}: it should give a "
            f"thaw.models.backbone.Backbone with an `adapter`"
        )
    return result


def head(cfg: DictConfig, num_features: int, num_classes: int) -> nn.Module:
    """A new head. Raises UserError if it does not fit."""
    head = make(cfg.head, num_features, num_classes)
    if not isinstance(head, nn.Module):
        raise UserError(f"head._target_={cfg.head._target_} gives a {type(head).__name__}, and a head is an nn.Module")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = head.eval()(torch.zeros(2, num_features))
    head.train()
    if outputs.shape != (2, num_classes):
        raise UserError(
            f"head._target_={cfg.head._target_} turns features (2, {num_features}) into {tuple(outputs.shape)}, and "
            f"there are {num_classes} classes or quantities: expected (2, {num_classes})"
        )
    return head


def network(cfg: DictConfig, backbone: Backbone, head: nn.Module) -> Network:
    """The backbone with a head, and what its BatchNorm layers do."""
    network = Network(backbone, head)
    batchnorm = cfg.freezing.get("batchnorm", "auto")
    network.keeps_statistics = batchnorm == "frozen" or (batchnorm == "auto" and kind_of(cfg, backbone) != "scratch")
    return network.to(memory_format=torch.channels_last) if cfg.channels_last else network


def running(cfg: DictConfig, network: Network) -> None:
    """How the network runs while it is trained. Raises UserError if it cannot run so."""
    if cfg.get("gradient_checkpointing"):  # folders of earlier versions have none
        checkpoint_gradients(network)
    if cfg.get("compile"):
        compile_backbone(network, cfg.compile_backend)


def plan(cfg: DictConfig, network: Network) -> Plan:
    """The phases of the run, bound to the parameters of `network`."""
    addresses = network.stage_addresses()
    stages = [stage for stage, own in addresses.items() if own]  # of others, an adapter trains nothing
    phases = list(make(without(cfg.freezing, ["batchnorm"]), stages=stages))
    if strange := [phase for phase in phases if not isinstance(phase, Phase)]:
        raise UserError(
            f"freezing._target_={cfg.freezing._target_} gives {strange[0]!r} among its phases: it should give "
            f"thaw.finetuning.phase.Phase(epochs, train)"
        )
    return Plan(phases, addresses)


def task(cfg: DictConfig, class_names: Sequence[str], known: Mapping[str, Any] = NOTHING) -> Task:
    """The task: loss, what outputs mean, metrics. `known`: what follows from the training samples, such as weights."""
    parts, weights = dict(known), cfg.task.get("class_weights")
    if "class_weights" in parts and weights is not None:
        raise UserError("data.balance=loss weighs the classes, and so does task.class_weights: take one of them")
    if isinstance(weights, DictConfig):
        parts["class_weights"] = _in_order(plain(weights), class_names)
    num_classes = len(class_names)
    facts = target_of(cfg.task).metric_facts(num_classes)
    metrics = {}
    for name, node in cfg.task.metrics.items():
        if node is not None:
            unset = {key: value for key, value in facts.items() if key not in node}
            metrics[name] = make(node, **only_accepted(target_of(node), unset))
    parts |= {"num_classes": num_classes, "loss": make_callable(cfg.loss), "metrics": metrics}
    return call(make_partial(cfg.task, omit=TASK_KEYS), "task", parts)


def _in_order(by_name: Mapping[Any, float], class_names: Sequence[str]) -> list[float]:
    """Weights in the order of the classes, 1 where none is given. Raises UserError for a class that there is not."""
    by_text = {str(name): weight for name, weight in by_name.items()}
    if unknown := [name for name in by_text if name not in class_names]:
        raise UserError(f"task.class_weights names {', '.join(unknown)}, and the classes are {', '.join(class_names)}")
    return [by_text.get(name, 1.0) for name in class_names]


def module(
    cfg: DictConfig,
    network: Network,
    plan: Plan,
    class_names: list[str],
    spec_type: type[InputSpec],
    task: Task,
    rates: Rates,
) -> FineTuningModule:
    """The LightningModule. `spec_type`: type of the network's input spec, which tells images from texts.

    Raises UserError if the configured class is not derived from FineTuningModule.
    """
    factory = make_partial(cfg.module)
    if not (inspect.isclass(factory.func) and issubclass(factory.func, FineTuningModule)):
        raise UserError(
            f"module._target_={cfg.module._target_} is not a class derived from thaw.training.module.FineTuningModule, "
            f"which commands and callbacks need"
        )
    parts = {
        "network": network,
        "task": task,
        "class_names": class_names,
        "plan": plan,
        "optimizer": optimizer(cfg, rates),
        "schedule": schedule(cfg),
        "mixing": _mixing(cfg, spec_type, task),
        "seed": cfg.seed,
    }
    return call(factory, "module", parts)


def optimizer(cfg: DictConfig, rates: Rates) -> Callable[..., Any]:
    """The optimizer factory; fused where it can be.

    Not where Lightning could not clip gradients (mixed precision), and not SGD: its fused kernel fails where some
    parameters of a group have trained before and others have not.
    """
    choices = cfg.optimizer
    factory = make_partial(choices, omit=GROUP_KEYS)
    accepted = keywords(factory.func)
    mixed = str(cfg.trainer.precision) in ("16-mixed", "bf16-mixed", "16", "bf16")
    can_fuse = "fused" in accepted and factory.func is not SGD and not (mixed and cfg.trainer.gradient_clip_val)
    if choices.fused and can_fuse:
        factory = partial(factory, fused=True)
    if choices.weight_decay and "weight_decay" not in accepted:
        log.warning("optimizer.weight_decay is ignored: %s has none", choices._target_)
    return partial(
        build_optimizer,
        optimizer=factory,
        rates=rates,
        weight_decay=choices.weight_decay,
        lr_by_processes=choices.lr_by_processes,
    )


def schedule(cfg: DictConfig) -> Schedule:
    """The schedule: a function of (step, steps), or a scheduler of torch. Raises UserError for one that is neither."""
    target = target_of(cfg.schedule)
    if inspect.isclass(target) and issubclass(target, (LRScheduler, ReduceLROnPlateau)):
        try:
            schedule: Schedule = ClosedForm(target, **make_partial(cfg.schedule).keywords)
        except TargetError as error:
            raise UserError(
                f"{error}. To begin without keys type schedule=constant schedule._target_={cfg.schedule._target_}"
            ) from None
    else:
        schedule = make_callable(cfg.schedule)
    require_factors(schedule)
    return schedule


def cached(cfg: DictConfig, data: DataModule, module: FineTuningModule) -> LightningDataModule:
    """The data module whose epochs begin behind the frozen stages; `data` itself with caching=off."""
    if not cfg.caching:
        return data
    return CachedDataModule(
        data,
        module.network,
        module.plan,
        Store.of_machine(cfg.caching.budget_gb),
        cfg.caching.dtype,
        cfg.caching.batch_size,
        mixes=module.mixing is not None,
        raw_only=not module.takes_activations,
    )


def _mixing(cfg: DictConfig, spec_type: type[InputSpec], task: Task) -> Callable[..., Any] | None:
    if not cfg.mixing:
        return None
    if spec_type is not ImageSpec:
        raise UserError(f"mixing mixes images, and the data are {spec_type.things}: type mixing=none")
    if not task.gives_logits:
        raise UserError("mixing mixes samples of one class each: type mixing=none, or task=single_label")
    share = torch.full((2, task.num_classes), 1 / task.num_classes)
    task.require_loss(share, f"class probabilities {tuple(share.shape)}, as mixing gives")
    return make(cfg.mixing, num_classes=task.num_classes)
