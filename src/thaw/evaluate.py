"""Measure a finished run again, from its folder alone: `python -m thaw.evaluate run=<folder>`."""

import json

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError


@command("evaluate")
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Metrics of `cfg.split` ("val" or "test") by name, beside those that the training run wrote."""
    from thaw.config import build
    from thaw.config.restore import restore
    from thaw.runs.folder import RunFolder
    from thaw.tasks.metrics import comparison_table

    if cfg.split not in ("val", "test"):
        raise UserError(f"split={cfg.split}, but it is val or test: type split=test")
    run = RunFolder(cfg.run)
    was, data = restore(run, cfg.data)
    if not len(data.parts[cfg.split]):
        raise UserError(
            f"there is no {cfg.split} split in the data: type split={'val' if cfg.split == 'test' else 'test'}"
        )
    if not len(data.parts["train"]):  # other data than the run's: its counts are no weights for the loss
        data.balance = "none"
    if several := {"devices", "num_nodes", "strategy"}.intersection(cfg.trainer):
        raise UserError(f"trainer.{', trainer.'.join(sorted(several))}: it is measured in one process, leave it out")
    was.cfg.trainer.merge_with(cfg.trainer, {"devices": 1, "num_nodes": 1, "strategy": "auto"})
    classifier = build.classifier(was.cfg, data, was.network, build.plan(was.cfg, was.network))
    data.prefix = build.frozen_prefix(was.cfg, data, classifier)
    trainer = build.evaluation_trainer(was.cfg)
    measure = trainer.test if cfg.split == "test" else trainer.validate
    metrics = dict(measure(classifier, datamodule=data, verbose=False)[0])
    (run.path / f"evaluate_{cfg.split}.json").write_text(json.dumps(metrics, indent=2) + "\n")
    trained = {name: value for name, value in run.metrics().items() if name in metrics}
    print(comparison_table({"training run": trained, "now": metrics}))
    return metrics


if __name__ == "__main__":
    main()
