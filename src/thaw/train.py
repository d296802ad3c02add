"""Fine-tune a network: `python -m thaw.train data=... backbone=... freezing=...` (`--help` lists the choices)."""

import logging
import sys
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.config.command import command, is_trial
from thaw.distributed.launch import run_in_processes, starts_processes
from thaw.distributed.ranks import join
from thaw.imports import library_imports
from thaw.runs.files import read_metrics
from thaw.runs.trials import trial_line
from thaw.training.stop_signals import signals

log = logging.getLogger("thaw.train")  # not __name__, which is __main__ under python -m


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Do one run, or one trial of a sweep, and return the monitored metric."""
    if starts_processes(cfg):
        run_in_processes(cfg)
        metrics = read_metrics(Path(HydraConfig.get().runtime.output_dir))  # metrics of a trial, for the sweeper
    else:
        metrics = train(cfg)
    if is_trial():
        print(trial_line(Path(HydraConfig.get().runtime.output_dir), cfg.monitor.metric, sys.argv), flush=True)
    return metrics.get(cfg.monitor.metric)


@signals
def train(cfg: DictConfig) -> dict[str, float]:
    """Do one run, from its configuration to a run folder.

    Returns:
        The final metrics by name.
    """
    with library_imports():
        from thaw.config.assemble import start
        from thaw.distributed.sharded import is_sharded
        from thaw.finetuning.table import stage_table
        from thaw.reporting.write import reported
        from thaw.runs.record import load_best, measure, recording, save
        from thaw.training.refit import refit_head

    processes = join(cfg)
    run, parts, trainer = start(cfg)
    data, module = parts.samples, parts.module
    written = reported(run, module.class_names, data, parts.network) if cfg.report else nullcontext()
    with written, recording(run, parts.settings, module, trainer):
        log.info("%s\ndevice %s, precision %s", run.path, trainer.strategy.root_device, trainer.precision)
        log.info(data.summary())
        groups = module.new_optimizer(trainer.world_size).param_groups
        log.info(stage_table(parts.network, parts.plan, groups))
        log.info(parts.why_rates)
        loaders = parts.loaders()
        trainer.fit(module, loaders, ckpt_path=run.checkpoint, weights_only=True)
        is_best = load_best(trainer, module)
        heads = refit_head(trainer, module, loaders) if is_best and parts.cfg.refit == "validation" else []
        if not is_sharded(trainer.strategy):
            measure(trainer, module, loaders, data.parts, validate=is_best)
        metrics = save(run, module, trainer, parts.cfg.monitor.metric, parts.cfg.monitor.mode, heads)
        log.info(run.report())
    processes.leave()
    return metrics


if __name__ == "__main__":
    main()
