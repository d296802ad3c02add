"""Builds objects from the configuration: one function for each part of a run."""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from torchvision.transforms.v2 import MixUp

from thaw.caching.data_module import CachedDataModule
from thaw.caching.store import Store
from thaw.config.instantiation import make
from thaw.data.module import DataModule
from thaw.distributed.agree import SyncBuffers
from thaw.distributed.ranks import ranks
from thaw.distributed.sharded import require_fitting
from thaw.errors import UserError
from thaw.finetuning.callback import FreezingCallback
from thaw.finetuning.phase import Plan
from thaw.models.backbone import Backbone
from thaw.models.network import Network, new_head
from thaw.runs.folder import RunFolder
from thaw.runs.loggers import MetricsCSV
from thaw.tasks.single_label import SingleLabel
from thaw.training.checkpoint_io import AtomicCheckpointIO
from thaw.training.module import FineTuningModule
from thaw.training.sample_order import SampleOrder
from thaw.types import ImageSpec, InputSpec

SET_ELSEWHERE = {
    "max_epochs": "the plan says how many epochs there are, type freezing.epochs=... (or what conf/freezing has)",
    "overfit_batches": "type debug=overfit",
    "plugins": "type trainer.precision=..., and checkpoints are written by a plugin of ours",
    "callbacks": "type callbacks=..., or +callbacks.mine._target_=...",
    "logger": "type logger=...",
    "default_root_dir": "type run_folder=...",
    "use_distributed_sampler": "the sampler already divides each batch among the processes",
}
"""Keys of Lightning's Trainer that the configuration of a run sets in another place, and where."""
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
"""Settings of a trainer for commands that measure or repeat something."""


def data(cfg: DictConfig) -> DataModule:
    """The data module, not yet split."""
    if cfg.data.get("download"):
        with ranks().first_per_node() as is_first:  # so that processes do not download into the same place
            data_module = make(cfg.data, download=is_first)
    else:
        data_module = make(cfg.data)
    if getattr(data_module, "keeps_decoded", False) and "caching" in cfg and not cfg.caching:
        raise UserError("data.decoded=on keeps images, and caching=off keeps nothing: type caching=on")
    return data_module


def backbone(cfg: DictConfig, pretrained: bool = True, texts: Sequence[str] = (), **facts: Any) -> Backbone:
    """The backbone.

    Args:
        cfg: the configuration.
        pretrained: False if weights are loaded from elsewhere later, or none are needed.
        texts: training texts, for a backbone that learns its vocabulary from them.
        **facts: settings of the backbone that a run folder recorded.
    """
    facts |= {} if pretrained else {"weights": None}
    if cfg.backbone.get("_partial_"):
        facts["texts"] = texts
    # A partial in any case: Hydra would turn the recorded values into mappings.
    return make(cfg.backbone, _partial_=True)(**facts)


def network(cfg: DictConfig, backbone: Backbone, num_classes: int) -> Network:
    """The backbone with a new head."""
    network = Network(backbone, new_head(backbone.num_features, num_classes, cfg.head.dropout))
    return network.to(memory_format=torch.channels_last) if cfg.channels_last else network


def plan(cfg: DictConfig, network: Network) -> Plan:
    """The phases of the run, bound to the parameters of `network`."""
    return Plan(make(cfg.freezing, stages=list(network.stages)), network.stage_addresses())


def task(cfg: DictConfig, num_classes: int, class_weights: Sequence[float] | None = None) -> SingleLabel:
    """The task: loss, probabilities and metrics. `class_weights`: weight of each class in the loss, from the data."""
    if class_weights is None:
        return make(cfg.task, num_classes=num_classes)
    if cfg.task.class_weights is not None:
        raise UserError("data.balance=loss weighs the classes, and so does task.class_weights: take one of them")
    return make(cfg.task, num_classes=num_classes, class_weights=class_weights)


def module(
    cfg: DictConfig, network: Network, plan: Plan, class_names: list[str], spec_type: type[InputSpec], task: SingleLabel
) -> FineTuningModule:
    """The LightningModule. `spec_type`: type of the network's input spec, which tells images from texts."""
    schedule = make(cfg.schedule)
    schedule = partial(schedule.func, **schedule.keywords)  # Hydra's own partial inspects its target in every step
    mixing = _mixing(cfg, spec_type, len(class_names))
    return FineTuningModule(network, task, class_names, plan, optimizer(cfg), schedule, mixing, cfg.seed)


def optimizer(cfg: DictConfig) -> Callable[..., Any]:
    """The optimizer factory; fused as configured, except where Lightning cannot clip gradients (mixed precision)."""
    mixed = str(cfg.trainer.precision) in ("16-mixed", "bf16-mixed", "16", "bf16")
    if mixed and cfg.trainer.gradient_clip_val and OmegaConf.select(cfg, "optimizer.optimizer.fused"):
        return make(cfg.optimizer, optimizer={"fused": None})
    return make(cfg.optimizer)


def cached(cfg: DictConfig, data: DataModule, module: FineTuningModule) -> LightningDataModule:
    """The data module whose epochs begin behind the frozen stages; `data` itself with caching=off."""
    if not cfg.caching:
        return data
    return CachedDataModule(
        data,
        module.network,
        module.plan,
        Store.of_machine(cfg.caching.budget_gb),
        cfg.caching.views,
        cfg.caching.dtype,
        cfg.caching.batch_size,
        mixes_pixels=not (module.mixing is None or isinstance(module.mixing, MixUp)),
    )


def callbacks(cfg: DictConfig, plan: Plan, data: DataModule) -> list[Callback]:
    """The callbacks of a training run. Raises UserError for one that cannot follow a plan."""
    configured = [make(node) for node in cfg.callbacks.values() if node is not None]
    if any(isinstance(callback, StochasticWeightAveraging) for callback in configured):
        raise UserError(
            "StochasticWeightAveraging trains with its own rate and renews the BatchNorm statistics of frozen stages: "
            "take callbacks=ema"
        )
    # FreezingCallback comes first, so that the others see each epoch as the plan wants it; then SyncBuffers, so that
    # they see the same on all processes.
    return [FreezingCallback(plan), SyncBuffers(), SampleOrder(data.identities), *configured]


def loggers(cfg: DictConfig, run: RunFolder) -> list[Logger]:
    """The loggers of a run: metrics.csv, and those that are configured."""
    if not ranks().is_first:
        return [CSVLogger(run.path, name="", version="")]  # Lightning lets only the first process write
    # Lightning puts the checkpoints beside the files of the first logger: into the run folder.
    all_loggers: list[Logger] = [MetricsCSV(run.path, run.first_step)]
    for node in (cfg.logger or {}).values():
        all_loggers.append(make(node)(folder=run.path, run_id=cfg.run_id, first_step=run.first_step))
    return all_loggers


def trainer(cfg: DictConfig, plan: Plan, data: DataModule, run: RunFolder) -> Trainer:
    """The trainer of a run. Raises UserError for keys that are set elsewhere, or if it cannot follow the plan."""
    for key, instead in SET_ELSEWHERE.items():
        if key in cfg.trainer:
            raise UserError(f"trainer.{key} would be ignored: {instead}")
    quieten_lightning()
    trainer = make(
        cfg.trainer,
        max_epochs=plan.total_epochs,
        callbacks=callbacks(cfg, plan, data),
        logger=loggers(cfg, run),
        default_root_dir=str(run.path),
        plugins=AtomicCheckpointIO(),
        use_distributed_sampler=False,  # our sampler knows the rank
    )
    # training/stop_signals.py handles signals instead: Lightning's handlers exit with code 0 and without saving, or
    # save a checkpoint beside the run that its next test would load.
    trainer._signal_connector.register_signal_handlers = _do_nothing
    require_fitting(trainer, plan)
    return trainer


def trainer_without_logs(cfg: DictConfig, callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    """A trainer of the run's precision, in one process, that writes nothing."""
    quieten_lightning()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "default_root_dir": cfg.run_folder,
        "sync_batchnorm": False,
    }
    return make(cfg.trainer, callbacks=list(callbacks), **ONE_PROCESS, **quiet, **settings)


def progress_bar(cfg: DictConfig) -> list[Callback]:
    """The configured progress bar, if there is one."""
    return [make(node) for name, node in cfg.callbacks.items() if name == "progress_bar" and node is not None]


def _mixing(cfg: DictConfig, spec_type: type[InputSpec], num_classes: int) -> Callable[..., Any] | None:
    if cfg.mixing and spec_type is not ImageSpec:
        raise UserError(f"mixing mixes images, and the data are {spec_type.things}: type mixing=none")
    return make(cfg.mixing, num_classes=num_classes) if cfg.mixing else None


def _do_nothing() -> None:
    pass


def quieten_lightning() -> None:
    """Silence Lightning's messages about settings that are intended."""
    # Tips and the list of devices (train.py prints where it runs); profilers report through another logger.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for name in ("fabric.utilities.distributed", "pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen by the plan
        r"The number of training batches .* is smaller than the logging interval",  # epochs are logged all the same
        r"The '\w+_dataloader' does not have many workers",  # a choice, made in conf/data
        r"It is recommended to use `self.log\('(plan|order)/",  # equal on all ranks
        r"The `srun` command is available",  # a machine of a cluster, and a run of one process
        r"Precision .* is not supported by the model summary",  # only its estimate of megabytes
        r"Checkpoint directory .* exists and is not empty",  # a resumed run's own
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15
    ):
        warnings.filterwarnings("ignore", message=message)
