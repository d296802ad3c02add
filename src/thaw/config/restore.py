"""What came out of a run, from its folder alone: the network, and the data split as it was."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.errors import UserError
from thaw.models.backbone import Backbone
from thaw.models.weights import load_weights, read_class_names, require_network
from thaw.runs.folder import WEIGHTS_FILE, RunFolder

if TYPE_CHECKING:
    from thaw.data.module import DataModule
    from thaw.models.network import Network

log = logging.getLogger(__name__)

OF_THE_PLACE = {"root", "table", "name", "options"}
"""Keys of `data` that say where it comes from."""
OF_THE_SPLIT = {"seed", "val_fraction", "test_fraction", "labels_per_class", "fold", "folds"}
"""Keys of `data` that are settled when a run begins."""


@dataclass(frozen=True)
class Trained:
    """What came out of a run."""

    cfg: DictConfig
    class_names: list[str]
    """In the order of the outputs."""
    backbone: Backbone
    """Its stages are those of `network`."""
    network: "Network"


def unfilled(run: RunFolder, cfg: DictConfig, num_classes: int) -> "tuple[Backbone, Network]":
    """As the run built them, with whatever weights."""
    from thaw.config import build

    backbone = build.backbone(cfg, pretrained=False, recorded=run.backbone_facts())
    backbone = replace(backbone, input_spec=run.input_spec())
    return backbone, build.network(cfg, backbone, num_classes)


def trained(run: RunFolder) -> Trained:
    """The network of a finished run, from the folder alone: its data need not be there."""
    cfg = run.config()
    if not run.weights.is_file():
        raise UserError(f"{run.path} has no {WEIGHTS_FILE}: its run did not end. Type thaw.train resume={run.path}")
    class_names = read_class_names(run.weights)
    assert class_names is not None, f"{run.weights} names no classes"
    backbone, network = unfilled(run, cfg, len(class_names))
    require_network(network.stages, run.weights)
    load_weights(network.stages, run.weights)
    return Trained(cfg, class_names, backbone, network.eval())


def restore(run: RunFolder, data_changes: DictConfig) -> tuple[Trained, "DataModule"]:
    """And its data, split as it was; `data_changes` says where they lie now, or names other data of these classes.

    Of other data, their test split is tested, or all of them where they have none; never what the run was trained on.
    Raises UserError where samples of the run are gone.
    """
    from thaw.config import build

    if idle := OF_THE_SPLIT.intersection(data_changes):
        raise UserError(f"data.{' and data.'.join(sorted(idle))} would be ignored: the run's own split is measured")
    was = trained(run)
    was.cfg.data.merge_with(data_changes)
    data = build.unsplit_data(was.cfg)
    data.align(was.class_names)
    data.use_input_spec(was.backbone.input_spec)
    recorded = run.samples()
    here = {data.identity(index) for index in range(len(data.targets))}
    found = sum(one.sample in here for one in recorded)
    if OF_THE_PLACE.isdisjoint(data_changes) or found > len(recorded) / 2:
        data.split_as(recorded)
        return was, data
    learnt = {one.sample.content for one in recorded if one.split in ("train", "val")} - {""}
    data.test_all(but=learnt)
    met = sum(sample.content in learnt for sample in here)
    if not len(data.splits.test) and not len(data.splits.val):
        raise UserError("there is nothing to measure: the run was trained on all of these samples")
    if met:
        log.warning("%d samples are left out: the run was trained on them, or chosen by them", met)
    return was, data
