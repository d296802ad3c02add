"""Fine-tune a network: `python -m thaw.train data=... backbone=... freezing=...` (`--help` lists the choices)."""

import atexit
import gc
import logging
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.config.command import command
from thaw.distributed.launch import run_in_processes, starts_processes
from thaw.distributed.ranks import join
from thaw.runs.files import read_metrics
from thaw.training.stop_signals import signals

log = logging.getLogger("thaw.train")  # not __name__, which is __main__ under python -m


@command("train")
def main(cfg: DictConfig) -> float | None:
    if starts_processes(cfg):
        run_in_processes(cfg)
        metrics = read_metrics(Path(HydraConfig.get().runtime.output_dir))  # of a trial, for the sweeper
    else:
        metrics = train(cfg)
    return metrics.get(cfg.monitor.metric)


@signals
def train(cfg: DictConfig) -> dict[str, float]:
    """One run, from its configuration to a run folder; gives the final metrics by name."""
    # Here, and not at the top: `--help` must not wait for torch.
    from lightning import seed_everything

    from thaw.config import build
    from thaw.config import resume as opening
    from thaw.distributed.sharded import is_sharded
    from thaw.finetuning.table import stage_table
    from thaw.runs import folder as run_folder

    spare_libraries()
    together = join(cfg)
    cfg, run = opening.open_together(cfg)
    seed_everything(cfg.seed, verbose=False)
    data = build.data(cfg)
    run.align(data)
    data.require_shares(together.world_size)
    fresh = run.checkpoint is None
    backbone = build.backbone(cfg, data.training_texts, fresh and cfg.init_from is None, run.recorded_backbone(cfg))
    data.use_input_spec(backbone.input_spec)
    network = build.network(cfg, backbone, data.num_classes)
    if fresh and cfg.init_from is not None:
        build.start_from(cfg, network, data)
    plan = build.plan(cfg, network)
    if not fresh:
        run.require_same_past(plan, build.plan(run.config(), network))
    classifier = build.classifier(cfg, data, network, plan)
    data.prefix = build.frozen_prefix(cfg, data, classifier)
    run.require_same_network(network)
    run.begin(cfg, data, backbone.settings)
    trainer = build.trainer(cfg, plan, run)
    with run.recording(cfg, trainer.loggers):
        log.info("%s\ndevice %s, precision %s", run.path, trainer.strategy.root_device, trainer.precision)
        log.info(data.summary())
        groups = classifier.make_optimizer(network.stages, world_size=trainer.world_size).param_groups
        log.info(stage_table(network.stages, plan, groups))
        trainer.fit(classifier, data, ckpt_path=run.checkpoint, weights_only=True)
        run_folder.load_best(trainer, classifier)
        if len(data.splits.test) and not is_sharded(trainer.strategy):
            trainer.test(classifier, data, verbose=False)
        metrics = run.save(classifier, trainer, cfg.monitor)
        log.info(run.report())
    together.leave()
    return metrics


@cache
def spare_libraries() -> None:
    """Garbage collection would go through all that was imported, 550,000 objects, again and again: 0.3 s each time, as
    long as ten epochs on features. Once a process, so that what an earlier trial left is still found."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # at the end libraries look for what was not freed, and complain


if __name__ == "__main__":
    main()
