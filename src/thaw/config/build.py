"""From the configuration to objects, in the order they are made: all of the wiring, the only caller of instantiate."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from torchvision.transforms.v2 import MixUp

from thaw.caching.prefix import FrozenPrefix
from thaw.caching.store import Store
from thaw.data.module import DataModule
from thaw.distributed.agree import SyncBuffers
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.finetuning.callback import FreezingCallback
from thaw.finetuning.phase import Plan
from thaw.models.backbone import Backbone
from thaw.models.network import Network, new_head
from thaw.models.weights import load_tensors, read_class_names, read_weights
from thaw.runs.folder import RunFolder, weights_file
from thaw.runs.loggers import MetricsCSV
from thaw.tasks.single_label import SingleLabel
from thaw.training.checkpoint_io import AtomicCheckpointIO
from thaw.training.module import FineTuningModule
from thaw.training.sample_order import SampleOrder
from thaw.types import ImageSpec, InputSpec, TokenSpec

NOT_OF_THE_TRAINER = {
    "max_epochs": "the plan says how many epochs there are, type freezing.epochs=... (or what conf/freezing has)",
    "overfit_batches": "type debug=overfit",
    "plugins": "type trainer.precision=..., and checkpoints are written by a plugin of ours",
    "callbacks": "type callbacks=..., or +callbacks.mine._target_=...",
    "logger": "type logger=...",
    "default_root_dir": "type run_folder=...",
    "use_distributed_sampler": "the sampler knows its share",
}


def data(cfg: DictConfig) -> DataModule:
    source = unsplit_data(cfg)
    source.split()
    return source


def unsplit_data(cfg: DictConfig) -> DataModule:
    source: DataModule = make(cfg.data)
    if "caching" in cfg:  # not so in commands that compute nothing
        source.use_store(Store.of_machine(cfg.caching.budget_gb) if cfg.caching else None)
    return source


def backbone(
    cfg: DictConfig, texts: Sequence[str] = (), pretrained: bool = True, recorded: Mapping[str, Any] | None = None
) -> Backbone:
    """`texts`: to learn words from, where the backbone does. `pretrained=False`: other weights follow, or none are
    needed. `recorded`: what a run keeps of its backbone."""
    facts: dict[str, Any] = {} if pretrained else {"weights": None}
    if cfg.backbone.get("_partial_"):
        facts["texts"] = texts
    # A partial in any case: Hydra would make plain mappings of what is recorded.
    return make(cfg.backbone, _partial_=True)(**facts, **(recorded or {}))


def network(cfg: DictConfig, backbone: Backbone, num_classes: int) -> Network:
    """The backbone's stages and a new head."""
    head = new_head(backbone.num_features, num_classes, cfg.head.dropout)
    network = Network(backbone.stages, head)
    if cfg.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


def plan(cfg: DictConfig, network: Network) -> Plan:
    idle = network.idle_stages
    phases = make(cfg.freezing, stages=[stage for stage in network.stage_names if stage not in idle])
    return Plan(phases, network.stage_names, idle)


@dataclass(frozen=True)
class Labels:
    """What a classifier has to know of data; a `DataModule` knows it, too."""

    class_names: list[str]
    takes: type[InputSpec]
    class_weights: list[float] | None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def classifier(cfg: DictConfig, data: DataModule | Labels, network: Network, plan: Plan) -> FineTuningModule:
    chosen = make(cfg.schedule)
    schedule = partial(chosen.func, **chosen.keywords)  # Hydra's own partial looks at its target in every step: 0.2 ms
    weighed = task(cfg, data.num_classes, **_class_weights(cfg, data))
    return FineTuningModule(
        network, weighed, data.class_names, plan, optimizer(cfg), schedule, mixing(cfg, data), cfg.seed
    )


def optimizer(cfg: DictConfig) -> Callable[..., Any]:
    """Fused as configured, but where Lightning cannot clip the gradients of a fused one: in mixed precision."""
    mixed = str(cfg.trainer.precision) in ("16-mixed", "bf16-mixed", "16", "bf16")
    if mixed and cfg.trainer.gradient_clip_val and OmegaConf.select(cfg, "optimizer.optimizer.fused"):
        return make(cfg.optimizer, optimizer={"fused": None})
    return make(cfg.optimizer)


def task(cfg: DictConfig, num_classes: int, **facts: Any) -> SingleLabel:
    return make(cfg.task, num_classes=num_classes, **facts)


def _class_weights(cfg: DictConfig, data: DataModule | Labels) -> dict[str, Any]:
    if data.class_weights is None:
        return {}
    if cfg.task.class_weights is not None:
        raise UserError("data.balance=loss weighs the classes, and so does task.class_weights: take one of them")
    return {"class_weights": data.class_weights}


def frozen_prefix(cfg: DictConfig, data: DataModule, classifier: FineTuningModule) -> FrozenPrefix | None:
    """What lets epochs begin behind the frozen stages; None where caching=off."""
    if not cfg.caching:
        return None
    assert data.store is not None
    return FrozenPrefix(
        classifier.network,
        classifier.plan,
        data,
        data.store,
        cfg.caching.views,
        cfg.caching.dtype,
        cfg.caching.batch_size,
        averages=any(isinstance(callback, WeightAveraging) for callback in callbacks(cfg, classifier.plan)),
        mixes_pixels=not (classifier.mixing is None or isinstance(classifier.mixing, MixUp)),
    )


def callbacks(cfg: DictConfig, plan: Plan) -> list[Callback]:
    chosen = [make(node) for node in cfg.callbacks.values() if node is not None]
    if any(isinstance(callback, StochasticWeightAveraging) for callback in chosen):
        raise UserError(
            "StochasticWeightAveraging trains with its own rate and renews the BatchNorm statistics of frozen stages: "
            "take callbacks=ema"
        )
    # First of all, so that the others see each epoch as the plan wants it, and the same on all processes.
    return [FreezingCallback(plan), SyncBuffers(), SampleOrder(), *chosen]


def loggers(cfg: DictConfig, run: RunFolder) -> list[Logger]:
    if not ranks().is_first:
        return [CSVLogger(run.path, name="", version="")]  # Lightning lets only the first process write
    first_step = run.first_step()
    # Lightning puts the checkpoints beside the files of the first logger: into the run folder.
    chosen: list[Logger] = [MetricsCSV(run.path, first_step)]
    for node in (cfg.logger or {}).values():
        chosen.append(make(node)(folder=run.path, run_id=cfg.run_id, first_step=first_step))
    return chosen


def trainer(cfg: DictConfig, plan: Plan, run: RunFolder) -> Trainer:
    """Raises UserError for keys of the Trainer that are made of something else here."""
    for key, instead in NOT_OF_THE_TRAINER.items():
        if key in cfg.trainer:
            raise UserError(f"trainer.{key} would be ignored: {instead}")
    _quieten()
    made = make(
        cfg.trainer,
        max_epochs=plan.total_epochs,
        callbacks=callbacks(cfg, plan),
        logger=loggers(cfg, run),
        default_root_dir=str(run.path),
        plugins=AtomicCheckpointIO(),
        use_distributed_sampler=False,  # our sampler knows the rank
    )
    # Signals are checkpointing/stopping.py's: Lightning leaves without saving, with exit code 0, or saves beside the
    # run what its next test would load.
    made._signal_connector.register_signal_handlers = _nothing
    return made


def evaluation_trainer(cfg: DictConfig) -> Trainer:
    """As the run's, to the same precision; it writes nothing."""
    _quieten()
    progress_bar = [make(node) for name, node in cfg.callbacks.items() if name == "progress_bar" and node is not None]
    return make(
        cfg.trainer,
        callbacks=progress_bar,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=cfg.run_folder,
    )


def replaying_trainer(cfg: DictConfig) -> Trainer:
    """As the run's, to the same precision, in one process; it writes nothing."""
    _quieten()
    return make(
        cfg.trainer,
        devices=1,
        num_nodes=1,
        strategy="auto",
        sync_batchnorm=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=cfg.run_folder,
    )


def mixing(cfg: DictConfig, data: DataModule | Labels) -> Callable[..., Any] | None:
    if cfg.mixing and data.takes is not ImageSpec:
        raise UserError(f"mixing mixes images, and the data are {data.takes.things}: type mixing=none")
    return make(cfg.mixing, num_classes=data.num_classes) if cfg.mixing else None


def start_from(cfg: DictConfig, network: Network, data: DataModule) -> None:
    """Fill `network` with the weights that `init_from` names: a run folder's, or a file. A head of other classes is not
    taken over, even if there are as many of them. Raises UserError where a run's tokens were other ones."""
    file = weights_file(cfg.init_from)
    spec = RunFolder(cfg.init_from).input_spec() if Path(cfg.init_from).is_dir() else None
    if isinstance(spec, TokenSpec) and spec.tokenizer != data.input_spec.tokenizer:
        raise UserError(
            f"{cfg.init_from} was trained with another tokenizer: its weights would stand for other words. Name the "
            f"backbone that it was trained with"
        )
    tensors = read_weights(file)
    if (trained_on := read_class_names(file)) is not None and trained_on != data.class_names:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    load_tensors(network.stages, tensors, str(file), optional="head.")


def make(node: DictConfig, **facts: Any) -> Any:
    """instantiate, but a user's mistake comes out as the error that the class raised."""
    try:
        return instantiate(node, _convert_="all", **facts)
    except InstantiationException as error:
        if isinstance(error.__cause__, (ValueError, OSError, MisconfigurationException)):
            raise error.__cause__ from None
        raise


def _nothing() -> None:
    pass


def _quieten() -> None:
    """Silence what Lightning says of things that are meant to be as they are."""
    # Its tips and devices (train.py says where it runs); what a profiler reports goes another way.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for place in ("fabric.utilities.distributed", "pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.{place}").setLevel(logging.WARNING)
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
