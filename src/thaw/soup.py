"""Average the weights of a sweep's trials: `python -m thaw.soup sweep=<folder>`; of a run and its probe: `run=...`."""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from thaw.arguments import for_shell
from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports
from thaw.runs.files import PROBE_FILE, SOUP_FILE, is_run

if TYPE_CHECKING:
    from thaw.runs.folder import RunFolder
    from thaw.training.averaging import Weights

log = logging.getLogger("thaw.soup")  # not __name__, which is __main__ under python -m


@command("soup", also={"sweep": "folder", "run": "folder"})
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    soup(cfg)


def soup(cfg: DictConfig) -> Path:
    """Average the weights that raise the monitored metric on validation, and return the run folder of the result.

    Raises:
        UserError: there are no weights to average, see `members_of`, or nothing to judge them by.
    """
    with library_imports():
        from thaw.config import trainers
        from thaw.config.assemble import assemble, run_with_weights
        from thaw.config.recorded import read_config
        from thaw.reporting.write import reported
        from thaw.runs.folder import RunFolder
        from thaw.runs.outputs import CollectOutputs
        from thaw.runs.record import measure, recording, save
        from thaw.sweeping.soup import Validation, along_line, greedy, members_of

    folder = Path(cfg.folder).expanduser().resolve()
    output = _free(folder.with_name(f"{folder.name}_soup") if cfg.output is None else Path(cfg.output).expanduser())
    members, num_others = members_of(folder)
    best = run_with_weights(str(members[0].path), cfg.trust)
    run_cfg = read_config(best.path, cfg.trust)
    run_cfg.data.merge_with(cfg.data)
    run_cfg.trainer.merge_with(cfg.trainer)
    parts = assemble(run_cfg, best).merged()
    data, module, monitor = parts.samples, parts.module, parts.cfg.monitor
    if not len(data.parts["val"]):
        raise UserError("there is no val split in the data, and only validation says which weights to average")
    trainer = trainers.trainer_without_logs(run_cfg, [CollectOutputs()], enable_progress_bar=False)
    refit = parts.cfg.refit == "validation"
    validation = Validation(trainer, module, data, monitor.metric, monitor.mode, refit)
    log.info("%s of averages of %d runs, the best first", monitor.metric, len(members))
    mix = greedy([(run.path.name, partial(_weights, run, cfg.trust)) for run in members], validation)
    averaged, line = mix.tried, []
    if start := probe([run for run, tried in zip(members, averaged, strict=True) if tried.taken], cfg):
        mix = along_line(start, mix, cfg.line, validation)
        line = mix.tried
    validation(mix.weights)  # once more, so that the module has them

    run = RunFolder(output)
    own_cfg = _own_config(parts.cfg, run.path)
    run.begin(OmegaConf.to_yaml(own_cfg, resolve=True), None, data, parts.backbone.settings)
    written = reported(run, module.class_names, data, parts.network) if cfg.report else nullcontext()
    with written, recording(run, {}, module, trainer):
        if num_others:
            log.info("left out: %d trials with another network, or with other samples for validation", num_others)
        command = f"python -m thaw.soup {for_shell('folder', folder)}"
        rows = {"weights": [one.row() for one in averaged], "line": [one.row() for one in line]}
        run.write(SOUP_FILE, json.dumps({"command": command, "monitor": monitor.metric, **rows}, indent=2))
        measure(trainer, module, data, data.parts, validate=True)
        save(run, module, trainer, monitor.metric, monitor.mode, validation.heads)
        log.info(run.report())
    return run.path


def _free(output: Path) -> Path:
    """Return the folder for the result. Raises UserError if another run is there; an earlier soup is replaced."""
    if is_run(output) and not (output / SOUP_FILE).is_file():
        raise UserError(f"{output} holds a run already: output=... names another folder")
    return output


def _weights(run: "RunFolder", trust: bool) -> "Weights":
    """The weights of a run, with adapters merged into them."""
    from thaw.config.assemble import trained

    return trained(str(run.path), trust).merged().module.state_dict()


def probe(runs: "Sequence[RunFolder]", cfg: DictConfig) -> "Weights | None":
    """The weights with which some runs began to train their backbone: the pretrained ones, and the mean of their heads.

    None, and a line that says why, if there are none. Raises UserError if they are all that was asked for.
    """
    from thaw.config.assemble import assemble
    from thaw.config.rates import from_scratch
    from thaw.config.recorded import read_config
    from thaw.models.weights import NETWORK, read_safetensors
    from thaw.training.averaging import mean

    files = [run.intact(PROBE_FILE) for run in runs]
    configs = [read_config(run.path, cfg.trust) for run in runs]
    lacking = next((run.path for run, file in zip(runs, files, strict=True) if not file.is_file()), None)
    problem = None
    if lacking is not None:
        problem = f"{lacking} has no {PROBE_FILE}: in its plan the head does not train first and the backbone later"
    elif any(map(from_scratch, configs)):
        problem = "the backbone began with random weights"
    elif len({(str(run_cfg.backbone), run_cfg.init_from) for run_cfg in configs}) > 1:
        problem = "the runs began with different weights"
    if problem is not None and is_run(cfg.folder):
        raise UserError(f"{problem}. To average several runs: sweep=<folder>")
    if problem is not None:
        log.info("no line to a probe: %s", problem)
    if problem is not None or not cfg.line:
        return None
    configs[0].data.merge_with(cfg.data)
    pretrained = assemble(configs[0]).merged().network.state_dict()
    head = mean([read_safetensors(file) for file in files])
    start = {**pretrained, **{f"head.{name}": value for name, value in head.items()}}
    return {NETWORK + name: value for name, value in start.items()}


def _own_config(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration of the result, whose weights are not those of any run."""
    own = cfg.copy()
    own.run_folder, own.run_id = str(folder), os.urandom(4).hex()
    if checkpoint := own.callbacks.get("checkpoint"):
        checkpoint.dirpath = None
    return own


if __name__ == "__main__":
    main()
