"""Export a trained network and verify the file against it: `python -m thaw.export run=<folder> format=onnx`."""

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports

if TYPE_CHECKING:
    from thaw.config.assemble import Parts
    from thaw.exporting.card import Origin
    from thaw.runs.folder import RunFolder


log = logging.getLogger("thaw.export")  # not __name__, which is __main__ under python -m


@command("export")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    export(cfg)


def export(cfg: DictConfig) -> Path:
    """Write a trained network with a model card and all that it takes to use it; return the network's file.

    Raises:
        UserError: if the network cannot be written in that format, or if the file cannot be loaded again or does not
            agree with the network. Nothing is written then.
    """
    is_rounded = cfg.precision != "fp32"
    if cfg.format != "onnx" and is_rounded:
        raise UserError(f"precision={cfg.precision} is for format=onnx: leave it out for format={cfg.format}")
    if cfg.agreement is not None and not is_rounded:
        raise UserError("agreement is for precision=fp16 and int8: where nothing is rounded, all samples must agree")
    with library_imports():
        from thaw.config.assemble import assemble, run_with_weights
        from thaw.config.instantiation import call_expression
        from thaw.config.recorded import read_config
        from thaw.exporting.card import model_card
        from thaw.exporting.formats import FORMATS, write
        from thaw.exporting.inference import InferenceModel
        from thaw.exporting.lower_precision import AGREEMENT
        from thaw.exporting.verify import require_agreement
        from thaw.models.library_names import last_linear
        from thaw.storage import require_writable, write_atomically

    run = run_with_weights(cfg.run, cfg.trust)
    run_cfg = read_config(run.path, cfg.trust)
    run_cfg.data.merge_with(cfg.data)
    parts = assemble(run_cfg, run)
    merged = parts.merged()
    if cfg.calibrate:
        if FORMATS[cfg.format].logits is not None:
            raise UserError(
                f"format={cfg.format} holds parameters only, and calibrate=true divides what they give: "
                "take format=onnx or exported_program"
            )
        run.calibrate(parts.module.task)
    head = call_expression(run_cfg.head, parts.backbone.num_features, len(parts.module.class_names))
    task, last = parts.module.task, last_linear(merged.network.head)
    task = task if last is None else task.folded_into(last)
    model = InferenceModel(merged.network, merged.backbone, task, parts.module.class_names, head)
    name = f"{cfg.format}_{cfg.precision}" if is_rounded else cfg.format
    folder = run.path / "export" / name if cfg.output is None else Path(cfg.output).expanduser()
    require_writable(folder)
    log.info("writing %s, then comparing it with the network on %d samples", cfg.format, cfg.samples)
    # Files are moved into the folder only after they were loaded again and agreed with the network.
    with tempfile.TemporaryDirectory(dir=folder) as unverified, tempfile.TemporaryDirectory() as samples_folder:
        file = write(model, cfg.format, Path(unverified), cfg.precision)
        size = sum(part.stat().st_size for part in file.parent.glob("model.*")) / 1e6
        samples = model.inputs.samples(parts.samples, cfg.samples, Path(samples_folder))
        least = (cfg.agreement if cfg.agreement is not None else AGREEMENT[cfg.precision]) if is_rounded else None
        share, difference = require_agreement(model, cfg.format, file, samples, least)
        same = "same results" if share == 1 else f"same result for {share:.1%}"
        comparison = f"{cfg.samples} {model.inputs.things}: {same}, {task.result} differ by at most {difference:.1e}"
        rounding = f"Rounded to {cfg.precision}. Compared with the network on {comparison}." if is_rounded else None
        card = model_card(model, cfg.format, file, parts.plan, _origin(run, parts), rounding)
        write_atomically(file.with_name("model_card.md"), card)
        for part in file.parent.iterdir():
            os.replace(part, folder / part.name)
    print(f"{folder / file.name}: {size:.2f} MB, {comparison}")
    return folder / file.name


def _origin(run: "RunFolder", parts: "Parts") -> "Origin":
    from thaw.data.samples import counts_by_label  # here, so that --help is fast
    from thaw.data.splits import SPLITS
    from thaw.exporting.card import Origin
    from thaw.runs.origin import origin

    cfg, rates = parts.cfg, parts.rates
    optimizer = (
        f"{cfg.optimizer._target_.rsplit('.', 1)[-1]}, head's rate {rates.lr:g}, "
        f"the backbone's x {rates.backbone_lr_scale:g}, each stage below x {rates.lr_decay:g}"
    )
    name, weights = origin(cfg)
    counts = counts_by_label(run.records(), SPLITS, parts.module.task.labels.counted)
    return Origin(name, weights, optimizer, cfg.seed, counts, run.metrics())


if __name__ == "__main__":
    main()
