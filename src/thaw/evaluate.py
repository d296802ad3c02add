"""Measure a finished run again, from its folder alone: `python -m thaw.evaluate run=<folder>`."""

import json
from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Measure, print the metrics beside those of the training run, and write them into `output`."""
    evaluate(cfg)


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Metrics of `cfg.split` ("val" or "test") by name. Raises UserError if the split or the trainer does not fit."""
    with library_imports():
        from thaw.config import trainers
        from thaw.config.assemble import assemble, run_with_weights
        from thaw.config.recorded import read_config
        from thaw.reporting.collect import Measured
        from thaw.reporting.write import try_to_report
        from thaw.runs.outputs import CollectOutputs
        from thaw.storage import write_atomically, writing_to
        from thaw.tasks.metrics import comparison_table

    trainers.require_one_process(cfg.trainer)
    run = run_with_weights(cfg.run, cfg.trust)
    run_cfg, in_training = read_config(run.path, cfg.trust), run.metrics()
    run_cfg.data.merge_with(cfg.data)
    run_cfg.trainer.merge_with(cfg.trainer)
    parts = assemble(run_cfg, run)
    if not len(parts.samples.parts[cfg.split]):
        other = "val" if cfg.split == "test" else "test"
        raise UserError(f"there is no {cfg.split} split in the data: type split={other}")
    collected = CollectOutputs()
    trainer = trainers.trainer_without_logs(run_cfg, [collected, *trainers.progress_bar(run_cfg)])
    measure = trainer.test if cfg.split == "test" else trainer.validate
    metrics = dict(measure(parts.module, datamodule=parts.loaders(), verbose=False)[0])
    recorded = {name: value for name, value in in_training.items() if name in metrics}
    print(comparison_table({"training run": recorded, "now": metrics}))  # before anything is written, which may fail
    if recorded and recorded == metrics:
        print("the same as in training, to the last digit")
    output = run.path if cfg.output is None else Path(cfg.output).expanduser().resolve()
    with writing_to(output):
        write_atomically(output / f"evaluate_{cfg.split}.json", json.dumps(metrics, indent=2) + "\n")
    if cfg.report:
        names, file = parts.module.class_names, output / f"evaluate_{cfg.split}.html"
        try_to_report(run, names, parts.samples, parts.network, Measured(collected.latest, metrics), file)
    return metrics


if __name__ == "__main__":
    main()
