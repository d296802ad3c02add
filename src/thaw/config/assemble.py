"""Puts the parts of a run together: one way for training, resuming, measuring, predicting and repeating a step."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from thaw.arguments import for_shell
from thaw.config import build, resume, trainers
from thaw.config.instantiation import plain
from thaw.config.monitor import settle_mode
from thaw.config.offered import require_offered
from thaw.config.overrides import overrides_to_record
from thaw.config.rates import backbone_steps, explained, from_scratch, rates, warn_of_high_rates
from thaw.config.recorded import checkpoint_folder, load_config, read_config
from thaw.config.values import require_valid
from thaw.data.module import DataModule
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.finetuning.param_groups import Rates
from thaw.finetuning.phase import Plan, as_typed
from thaw.models.backbone import Backbone
from thaw.models.library_names import own_names
from thaw.models.network import Network
from thaw.models.weights import (
    NETWORK,
    fill,
    load_tensors,
    read_checkpoint,
    read_class_names,
    read_safetensors,
    read_weights,
    require_network,
)
from thaw.runs.files import MODULE_FILE, is_run
from thaw.runs.folder import RunFolder, weights_file
from thaw.training.module import FineTuningModule
from thaw.types import TokenSpec

log = logging.getLogger(__name__)

SPLIT_KEYS = {"seed", "val_fraction", "test_fraction", "labels_per_class", "fold", "folds"}
"""Keys of `data` that decide the split; a run's split is fixed when it begins."""


@dataclass(frozen=True)
class Labels:
    """Facts about the labels, for commands that work without the run's data."""

    class_names: list[str]
    """In the order of the network's outputs."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the task is told of the training samples, see `DataModule.task_facts`."""


@dataclass(frozen=True)
class Parts:
    """What a run consists of, before a trainer brings it together."""

    cfg: DictConfig
    data: DataModule | None
    """None if the parts were assembled from `Labels`."""
    backbone: Backbone
    network: Network
    """The network built from `backbone`, with a new head."""
    plan: Plan
    module: FineTuningModule
    rates: Rates
    why_rates: str
    """Where the rates come from, for people."""

    @property
    def samples(self) -> DataModule:
        """The data; fails if the parts were assembled from `Labels`."""
        assert self.data is not None, "these parts were assembled without data"
        return self.data

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as plain values, with the learning rates that follow from it."""
        settings = plain(self.cfg)
        return {**settings, "optimizer": {**settings["optimizer"], **asdict(self.rates)}}

    def loaders(self) -> LightningDataModule:
        """The data module for a trainer: with the frozen stages' cache, unless caching=off."""
        return build.cached(self.cfg, self.samples, self.module)

    def merged(self) -> "Parts":
        """The same run without adapters, which are added to the weights; the plan still names them.

        Use only the result afterwards.
        """
        if (adapter := self.backbone.adapter) is None:
            return self
        cfg, backbone = self.cfg.copy(), adapter.merge()
        cfg.adapter = None
        network = build.network(cfg, backbone, self.network.head)
        self.module.network = network
        return replace(self, cfg=cfg, backbone=backbone, network=network)


def assemble(cfg: DictConfig, remembered: RunFolder | None = None, labels: Labels | None = None) -> Parts:
    """Build data, network, plan and module.

    Args:
        cfg: the configuration of the run; with `remembered`, that run's own with changes.
        remembered: folder of a run to resume (with a checkpoint: everything must be as it was), or of a finished one,
            whose weights are loaded; None for a new run.
        labels: facts about the labels; then no data is loaded.

    Raises:
        UserError: a setting does not fit, or something is not as the run folder remembers it.
    """
    data = split_data(cfg, remembered) if labels is None else None
    if data is not None:
        data.require_shares(ranks().world_size)
        labels = Labels(data.class_names, data.task_facts if len(data.train_indices) else {})
    assert labels is not None
    backbone = _backbone(cfg, remembered, data)
    if data is not None:
        data.use_input_spec(backbone.input_spec)
    head = build.head(cfg, backbone.num_features, len(labels.class_names))
    network = build.network(cfg, backbone, head)
    if remembered is None and cfg.init_from is not None and data is not None and not from_scratch(cfg):
        _start_from(cfg, backbone, network, data)
    if adapter := cfg.get("adapter"):  # folders of earlier versions have none
        backbone = _adapted(cfg, adapter, backbone)
        network = build.network(cfg, backbone, head)
    plan = build.plan(cfg, network)
    if data is not None:
        data.frozen_stages = plan.frozen_prefix
    task = build.task(cfg, labels.class_names, labels.facts)
    steps = 0 if data is None else backbone_steps(cfg, plan, len(data.parts["train"]))
    chosen = rates(cfg, backbone, steps)
    module = build.module(cfg, network, plan, labels.class_names, type(backbone.input_spec), task, chosen)
    if remembered is not None and remembered.checkpoint is not None:
        _require_same_past(remembered, plan, build.plan(load_config(remembered.path), network))
        require_network(network, remembered.checkpoint)
    elif remembered is not None and (weights := remembered.best_weights) is not None:
        require_network(network, weights)
        fill(network, read_weights(weights))
        network.eval()
        _load_own(module, weights, remembered)
    return Parts(cfg, data, backbone, network, plan, module, chosen, explained(cfg, backbone, steps))


def start(cfg: DictConfig) -> tuple[RunFolder, Parts, Trainer]:
    """Open the run folder that `cfg` asks for, new or to resume, assemble the run's parts, and make its trainer.

    Collective: call on every rank.

    Raises:
        UserError: see `open_run`, `assemble`, `settle_mode` and `trainers.trainer`.
    """
    require_valid(cfg)
    settle_mode(cfg)  # before a run of the same configuration is looked for
    cfg, run = resume.open_together(cfg)
    settle_mode(cfg)  # of a resumed run, whose own configuration this is
    seed_everything(cfg.seed, verbose=False)
    parts = assemble(cfg, run if run.checkpoint is not None else None)
    warn_of_high_rates(cfg, parts.backbone, parts.rates)
    build.running(cfg, parts.network)
    config_yaml = OmegaConf.to_yaml(cfg, resolve=True)
    run.begin(config_yaml, overrides_to_record(), parts.samples, parts.backbone.settings)
    return run, parts, trainers.trainer(cfg, parts.plan, parts.samples, run)


def run_with_weights(path: str, trust: bool = False) -> RunFolder:
    """The folder of a run that has weights: of a finished one, or of one that has a best checkpoint, with a warning.

    Raises:
        UserError: it is no run folder, or its run ended before its first checkpoint; see `read_config`.
    """
    run = RunFolder(path, checkpoints=checkpoint_folder(read_config(RunFolder(path).path, trust)))
    if (weights := run.best_weights) is None:
        command = f"python -m thaw.train {for_shell('resume', run.path)}"
        raise UserError(f"{run.path} has no weights yet: its run did not end. Type {command}")
    if weights != run.weights:
        log.warning("the run in %s did not end: these are the weights of its best epoch so far, %s", run.path, weights)
    return run


def trained(path: str, trust: bool = False) -> Parts:
    """The parts of a finished run, with its weights and without its data. Raises UserError, see `run_with_weights`."""
    run = run_with_weights(path, trust)
    return assemble(read_config(run.path, trust), run, Labels(run.class_names()))


def split_data(
    cfg: DictConfig, remembered: RunFolder | None = None, class_names: list[str] | None = None
) -> DataModule:
    """The data: split now, or as the remembered run split it.

    Args:
        cfg: the configuration; if it names other data than the remembered run's, these are split for measuring.
        remembered: folder of the run.
        class_names: class names of the run, if its folder has no weights yet.

    Raises:
        UserError: samples are missing, or (for a run to resume) were added or relabelled.
    """
    changes = _changed_keys(cfg, remembered) if remembered is not None else set()
    if remembered is not None and remembered.checkpoint is None and (ignored := SPLIT_KEYS & changes):
        raise UserError(f"data.{' and data.'.join(sorted(ignored))} would be ignored: the run's own split is measured")
    if remembered is not None:
        _require_in_place(cfg, "" if remembered.checkpoint is not None else "+")
    data = build.data(cfg)
    if remembered is None:
        data.split()
        return data
    data.align(class_names or remembered.class_names())
    if remembered.checkpoint is not None:
        _split_as_before(data, remembered)
    else:
        moved = not changes <= build.data_settings().keys()  # other keys say where the data come from
        _split_for_measuring(data, remembered, moved)
    return data


def _require_in_place(cfg: DictConfig, plus: str) -> None:
    """Raise UserError if the data of a run are not where they were; `plus`: what commands take new keys with."""
    for key in ("root", "table"):
        path = cfg.data.get(key)
        if isinstance(path, str) and "://" not in path and not Path(path).expanduser().exists():
            raise UserError(
                f"the data of this run are not at {path} any more: type {plus}data.{key}=<the place where they are now>"
            )


def _changed_keys(cfg: DictConfig, run: RunFolder) -> set[str]:
    """Keys of `data` that differ from the run's own configuration."""
    before = load_config(run.path).data
    return {str(key) for key, value in cfg.data.items() if key not in before or before[key] != value}


def _split_as_before(data: DataModule, run: RunFolder) -> None:
    """Split as the run to resume did. Raises UserError if samples are missing, or were added or relabelled."""
    records = run.records()
    data.split_as(records)
    if added := len(data.labels) - len(records):
        raise UserError(
            f"{added} samples were added to the data since this run began: resumed, it would end with another result. "
            "Take them away, or start a new run from its weights: "
            f"python -m thaw.train {for_shell('init_from', run.path)}"
        )
    labels = Counter((sample, label) for sample, label, _ in records)
    if changed := labels - Counter((sample, label) for sample, label, _ in data.records()):
        names = ", ".join(sample.name for sample, _ in list(changed)[:5])
        raise UserError(
            f"{sum(changed.values())} samples have other labels than when this run began ({names} ...): put them "
            f"back, or start a new run from its weights: python -m thaw.train {for_shell('init_from', run.path)}"
        )


def _split_for_measuring(data: DataModule, run: RunFolder, moved: bool) -> None:
    """Split as the run did; other data are used for testing only, without samples that the run was trained on.

    `moved`: whether the configuration names another place.
    """
    records, samples = run.records(), set(data.identities())
    if not moved or sum(record.sample in samples for record in records) > len(records) / 2:
        data.split_as(records)
        return
    seen_contents = {record.sample.content for record in records if record.split in ("train", "val")} - {""}
    data.test_all(but=seen_contents)
    data.balance = "none"  # nothing is trained on, so there are no counts to weigh the loss by
    if not len(data.splits.test) and not len(data.splits.val):
        raise UserError("there is nothing to measure: the run was trained on all of these samples")
    if num_seen := sum(sample.content in seen_contents for sample in samples):
        log.warning("%d samples are left out: the run was trained on them or validated with them", num_seen)


def _backbone(cfg: DictConfig, remembered: RunFolder | None, data: DataModule | None) -> Backbone:
    """The backbone; that of a remembered run is built as it was recorded, without pretrained weights."""
    if remembered is not None:
        facts: dict[str, Any] = {**remembered.backbone_facts(), "input_spec": remembered.input_spec()}
        return replace(build.backbone(cfg, pretrained=False, **facts), input_spec=facts["input_spec"])
    facts = {}
    if data is not None:
        build.require_reader(cfg, data)
        facts = {"texts": data.training_texts, "pairs": data.pairs}
    if cfg.init_from is not None and build.takes_texts(cfg):  # it starts from the vocabulary of that run, too
        facts |= RunFolder(cfg.init_from).backbone_facts()
    return build.backbone(cfg, cfg.init_from is None, **facts)


def _adapted(cfg: DictConfig, adapter: DictConfig, backbone: Backbone) -> Backbone:
    """The backbone with adapters. Raises UserError if there is nothing pretrained to adapt."""
    if from_scratch(cfg):
        key = "backbone.weights=none" if cfg.get("pretrained", True) else "pretrained=false"
        raise UserError(
            f"adapter: its pretrained weights never train, and {key} has none: type adapter=none, or "
            f"backbone.weights=<pretrained ones>"
        )
    return build.adapted(adapter, backbone)


def _start_from(cfg: DictConfig, backbone: Backbone, network: Network, data: DataModule) -> None:
    """Load weights into `network` from `init_from`: a run folder, another folder or a file, see `read_weights`.

    Adapters of a run are merged into its weights. The head is skipped if it is for other classes.

    Raises UserError if the weights belong to another network, or to another tokenizer.
    """
    source, file = cfg.init_from, weights_file(cfg.init_from)
    if isinstance(data.input_spec, TokenSpec) and not _same_words(data.input_spec, source, file):
        raise UserError(
            f"{source} was trained with another tokenizer: its weights would stand for other words. Name the "
            f"backbone that it was trained with"
        )
    if adapter := load_config(Path(source)).get("adapter") if is_run(source) else None:
        require_offered({"adapter": plain(adapter)}, Path(source))
        backbone = build.adapted(adapter, backbone)
        network = build.network(cfg, backbone, network.head)
    tensors = read_weights(file) if is_run(source) else own_names(read_weights(file), network, backbone.recipe)
    if (class_names := read_class_names(file)) is not None and class_names != data.class_names:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    load_tensors(network, tensors, str(file), optional="head.")
    if backbone.adapter is not None:
        backbone.adapter.merge()


def _same_words(spec: TokenSpec, source: str, file: Path) -> bool:
    """Whether the run in `source` had the same tokenizer, or a tokenizer.json beside `file` numbers the same tokens."""
    beside = file.with_name("tokenizer.json")
    if is_run(source):
        before = RunFolder(source).input_spec()
        return not isinstance(before, TokenSpec) or before.tokenizer == spec.tokenizer
    return not beside.is_file() or replace(spec, tokenizer=beside.read_text("utf-8")).vocabulary == spec.vocabulary


def _load_own(module: FineTuningModule, weights: Path, run: RunFolder) -> None:
    """Load what a user's own module has beside its network. Raises UserError if its class has changed.

    Args:
        module: the module.
        weights: the network's weights: a checkpoint, which holds the module's, too, or a file beside the module's.
        run: the folder of its run.
    """
    if weights.suffix == ".safetensors":
        file = run.intact(MODULE_FILE)
        own = read_safetensors(file) if file.is_file() else {}
    else:
        file, state = weights, read_checkpoint(weights)["state_dict"]
        own = {name: value for name, value in state.items() if not name.startswith(NETWORK)}
    if not own:
        return
    names = module.load_state_dict(own, strict=False)
    missing = [name for name in names.missing_keys if not name.startswith(NETWORK)]
    if missing or names.unexpected_keys:
        raise UserError(
            f"{file} is of another module than {type(module).__name__}: missing in it {missing or 'nothing'}, surplus "
            f"{names.unexpected_keys or 'nothing'}. Use the code that the run was trained with"
        )


def _require_same_past(run: RunFolder, plan: Plan, before: Plan) -> None:
    """Raise UserError if a phase of the run to resume that has begun differs; later phases may change."""
    num_begun = before.index(run.resumed["epoch"]) + 1
    past, now = (
        [(phase.epochs, trained, phase.lr_scale) for phase, trained in zip(p.phases, p.trained_in, strict=True)]
        for p in (before, plan)
    )
    if past[:num_begun] != now[:num_begun]:
        phases = ", ".join(
            f"{{epochs: {phase.epochs}, train: {as_typed(phase.train)}, lr_scale: {phase.lr_scale}}}"
            for phase in before.phases[:num_begun]
        )
        raise UserError(
            f"the first {num_begun} phases of {run.path} have begun, and this plan has others. Type freezing=phases "
            f"'freezing.phases=[{phases}, ...]' with further phases in place of ..."
        )
