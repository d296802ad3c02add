"""Average the weights of a sweep's trials: `python -m thaw.soup sweep=<folder>`; of a run and its probe: `run=...`."""

import json
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports
from thaw.runs.files import SOUP_FILE, is_run
from thaw.runs.trials import holds_numbered_trials

log = logging.getLogger("thaw.soup")  # not __name__, which is __main__ under python -m


@command("soup")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    soup(cfg)


def soup(cfg: DictConfig) -> Path:
    """Average the weights that raise the monitored metric on validation, and return the run folder of the result.

    Raises:
        UserError: there are no weights to average, see `members_of`, or nothing to judge them by.
    """
    with library_imports():
        from thaw.config import averaging, trainers
        from thaw.config.assemble import assemble, run_with_weights
        from thaw.config.recorded import read_config
        from thaw.reporting.write import reported
        from thaw.runs.folder import RunFolder
        from thaw.runs.outputs import CollectOutputs
        from thaw.runs.record import measure, recording, save
        from thaw.sweeping.soup import Validation, along_line, greedy, members_of

    trainers.require_one_process(cfg.trainer)
    folder = Path(cfg.folder).expanduser().resolve()
    run = RunFolder(_free(folder.with_name(f"{folder.name}_soup") if cfg.output is None else Path(cfg.output)))
    members, num_others = members_of(folder)
    best = run_with_weights(str(members[0].path), cfg.trust)
    run_cfg = read_config(best.path, cfg.trust)
    run_cfg.data.merge_with(cfg.data)
    run_cfg.trainer.merge_with(cfg.trainer)
    parts = averaging.for_own_folder(assemble(run_cfg, best), run.path)
    data, module, monitor = parts.samples, parts.module, parts.cfg.monitor
    if not len(data.parts["val"]):
        raise UserError("there is no val split in the data, and only validation says which weights to average")
    start = averaging.probe(best, run_cfg, cfg.trust, is_single=is_run(folder)) if cfg.line_points else None
    trainer = trainers.trainer_without_logs(run_cfg, [CollectOutputs()], enable_progress_bar=False)

    run.begin(OmegaConf.to_yaml(parts.cfg, resolve=True), None, data, parts.backbone.settings)
    written = reported(run, module.class_names, data, parts.network) if cfg.report else nullcontext()
    with written, recording(run, {}, module, trainer):
        validation = Validation(trainer, module, data, monitor.metric, monitor.mode, parts.cfg.refit == "validation")
        log.info("%s of averages of %d runs, the best first", monitor.metric, len(members))
        if num_others:
            log.info("left out: %d trials with another network, or with other samples for validation", num_others)
        readers = [(member.path.name, partial(averaging.weights_of, member, cfg.trust)) for member in members]
        averaged = result = greedy(readers, validation)
        if start is not None:
            result = along_line(start, averaged, cfg.line_points, validation)
        line = [one.row() for one in result.tried] if start is not None else []
        record = {"command": averaging.typed_command(folder), "monitor": monitor.metric}
        rows = {"weights": [one.row() for one in averaged.tried], "line": line}
        run.write(SOUP_FILE, json.dumps({**record, **rows}, indent=2))
        validation(result.weights)  # once more, so that the module has them
        measure(trainer, module, data, data.parts, validate=True)
        save(run, module, trainer, monitor.metric, monitor.mode, validation.heads)
        log.info(run.report())
    return run.path


def _free(output: Path) -> Path:
    """Return the folder for the result. Raises UserError if a run or a sweep is there."""
    output = output.expanduser()
    if is_run(output) or holds_numbered_trials(output):
        held = "a run" if is_run(output) else "a sweep"
        raise UserError(f"{output} holds {held} already: output=... names another folder")
    return output


if __name__ == "__main__":
    main()
