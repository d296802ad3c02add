"""Builds Lightning's trainer with its callbacks and loggers."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from thaw.config.instantiation import call, make, make_partial, target_of
from thaw.data.module import DataModule
from thaw.distributed.agree import SyncBuffers
from thaw.distributed.ranks import ranks
from thaw.distributed.sharded import require_fitting
from thaw.errors import UserError
from thaw.finetuning.callback import FreezingCallback
from thaw.finetuning.phase import Plan
from thaw.runs.folder import RunFolder
from thaw.runs.loggers import MetricsCSV
from thaw.runs.outputs import CollectOutputs
from thaw.runs.probe import SaveProbe
from thaw.signatures import keywords
from thaw.training.checkpoint_io import AtomicCheckpointIO
from thaw.training.sample_order import SampleOrder

UNFIT = {
    StochasticWeightAveraging: "trains at its own rate and renews the BatchNorm statistics of frozen stages: take "
    "callbacks=ema",
    BaseFinetuning: "freezes stages beside the plan, and for ever after a resume: take freezing=...",
    GradientAccumulationScheduler: "changes the number of steps, on which the rates depend: take "
    "trainer.accumulate_grad_batches=...",
    BatchSizeFinder: "trains before the run begins: try a few with -m data.batch_size=32,64,128",
    LearningRateFinder: "trains before the run begins: try a few with -m optimizer.lr=1e-3,3e-3,1e-2",
}
"""Callbacks of Lightning that cannot follow a plan, and what to do instead."""
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
"""Settings of a trainer for commands that measure or repeat something."""


def callbacks(cfg: DictConfig, plan: Plan, data: DataModule, run: RunFolder) -> list[Callback]:
    """The callbacks of a training run. Raises UserError for one that cannot follow a plan."""
    configured = [_callback(cfg, node) for node in cfg.callbacks.values() if node is not None]
    for callback in configured:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(run.checkpoints)  # Lightning would take the folder of the first logger
    for kind, instead in UNFIT.items():
        if any(isinstance(callback, kind) for callback in configured):
            raise UserError(f"{kind.__name__} {instead}")
    # FreezingCallback comes first, so that the others see each epoch as the plan wants it; then SyncBuffers, so that
    # they see the same on all processes.
    return [
        FreezingCallback(plan),
        SyncBuffers(),
        SampleOrder(data.identities),
        CollectOutputs(),
        SaveProbe(run.path),
        *configured,
    ]


def _callback(cfg: DictConfig, node: DictConfig) -> Callback:
    """A callback; one that takes `pictures` and is not told any gets those of the task."""
    if "pictures" in node or "pictures" not in keywords(target_of(node)):
        return make(node)
    pictures = {name: make(picture) for name, picture in cfg.task.get("pictures", {}).items() if picture is not None}
    return make(node, pictures=pictures)


def loggers(cfg: DictConfig, run: RunFolder) -> list[Logger]:
    """The loggers of a run: those that are configured, the first of them `trainer.logger`, and metrics.csv.

    A logger is made from its keys and from those of `folder`, `thaw_id` and `first_step` that it takes.
    """
    if not ranks().is_first:
        return [CSVLogger(run.path, name="", version="")]  # here its `experiment` takes every call and does nothing
    metrics_csv = MetricsCSV(run.path, run.first_step)  # first: W&B reads the rows that it keeps
    facts = {"folder": run.path, "thaw_id": cfg.run_id, "first_step": run.first_step}
    nodes = {f"logger.{name}": node for name, node in (cfg.logger or {}).items() if node is not None}
    return [*(call(make_partial(node), key, facts) for key, node in nodes.items()), metrics_csv]


def trainer(cfg: DictConfig, plan: Plan, data: DataModule, run: RunFolder) -> Trainer:
    """The trainer of a run. Raises UserError if it cannot follow the plan."""
    quieten_lightning()
    parts = {"callbacks": callbacks(cfg, plan, data, run), "logger": loggers(cfg, run), "plugins": AtomicCheckpointIO()}
    ours = {"max_epochs": plan.total_epochs, "default_root_dir": str(run.path)}
    try:
        trainer = make(cfg.trainer, **parts, **ours, use_distributed_sampler=False)  # our sampler knows the rank
    except MisconfigurationException as error:
        raise UserError(
            f"trainer: {error} What this machine has: python -m thaw.doctor. Without it: trainer.accelerator=cpu"
        ) from error
    # training/stop_signals.py handles signals instead: Lightning's handlers exit with code 0 and without saving, or
    # save a checkpoint beside the run that its next test would load.
    trainer._signal_connector.register_signal_handlers = _do_nothing
    require_fitting(trainer, plan)
    return trainer


def require_one_process(changes: DictConfig) -> None:
    """Raise UserError if changes to a run's trainer ask for several processes, where its weights are only measured."""
    if several := set(ONE_PROCESS).intersection(changes):
        raise UserError(f"trainer.{', trainer.'.join(sorted(several))}: a run is measured in one process, leave it out")


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
