"""What `thaw.soup` averages: the weights of runs without adapters, and those from which a run began."""

import logging
import os
import shlex
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from thaw.arguments import for_shell
from thaw.config import build
from thaw.config.assemble import Parts, assemble, trained
from thaw.config.offered import require_confined
from thaw.config.overrides import typed_overrides
from thaw.config.rates import from_scratch
from thaw.errors import UserError
from thaw.models.weights import NETWORK, read_safetensors
from thaw.runs.files import PROBE_FILE, is_run
from thaw.runs.folder import RunFolder
from thaw.training.averaging import Weights

log = logging.getLogger(__name__)


def for_own_folder(parts: Parts, folder: Path) -> Parts:
    """The parts of a run for a folder of its own, whose weights are those of no run.

    Adapters are merged. A plan may name parameters of theirs, so it then becomes one that trains everything.
    """
    had_adapters, merged = parts.backbone.adapter is not None, parts.merged()
    cfg = merged.cfg.copy()
    cfg.run_folder, cfg.run_id = str(folder), os.urandom(4).hex()
    if checkpoint := cfg.callbacks.get("checkpoint"):
        checkpoint.dirpath = None
    plan = merged.plan
    if had_adapters:
        batchnorm = cfg.freezing.get("batchnorm", "auto")
        full = {"_target_": "thaw.finetuning.plans.full", "epochs": plan.total_epochs, "batchnorm": batchnorm}
        cfg.freezing = OmegaConf.create(full)
        plan = build.plan(cfg, merged.network)
        merged.module.plan = plan
    return replace(merged, cfg=cfg, plan=plan)


def weights_of(run: RunFolder, trust: bool) -> Weights:
    """The weights of a run, with adapters merged into them."""
    return trained(str(run.path), trust).merged().module.state_dict()


def probe(run: RunFolder, cfg: DictConfig, trust: bool, is_single: bool) -> Weights | None:
    """The weights with which a run began to train its backbone: the pretrained ones, and the head trained on them.

    Args:
        run: its folder.
        cfg: its configuration.
        trust: whether what `init_from` names is read, whatever it holds.
        is_single: whether this run is all that there is to average.

    Returns:
        Tensors by name; None, after a line that says why, if there are none.

    Raises:
        UserError: there are none, and without them there is nothing to average.
    """
    try:
        return _probe(run, cfg, trust)
    except UserError as error:
        if is_single:
            raise UserError(f"{error}. To average several runs: sweep=<folder>") from error
        log.info("no points on a line to a probe: %s", error)
        return None


def _probe(run: RunFolder, cfg: DictConfig, trust: bool) -> Weights:
    file = run.intact(PROBE_FILE)
    if not file.is_file():
        raise UserError(f"{run.path} has no {PROBE_FILE}: in its plan the head does not train first and the rest later")
    if from_scratch(cfg):
        raise UserError(f"{run.path} began with random weights, which nobody has kept")
    if cfg.init_from is not None and is_run(cfg.init_from) and not trust:
        require_confined(Path(cfg.init_from))
    pretrained = assemble(cfg).merged().network.state_dict()
    head = {f"head.{name}": value for name, value in read_safetensors(file).items()}
    return {NETWORK + name: value for name, value in {**pretrained, **head}.items()}


def typed_command(folder: Path) -> str:
    """The command that was typed, with the folder's whole path."""
    others = [word for word in typed_overrides() if not word.startswith("folder=")]
    return " ".join(["python -m thaw.soup", for_shell("folder", folder), *map(shlex.quote, others)])
