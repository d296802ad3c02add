"""A file to give away, compared with the network it came from: `python -m thaw.export run=<folder> format=onnx`."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError

if TYPE_CHECKING:
    from thaw.config.restore import Trained
    from thaw.exporting.card import Origin
    from thaw.runs.folder import RunFolder


@command("export")
def main(cfg: DictConfig) -> None:
    export(cfg)


def export(cfg: DictConfig) -> Path:
    """Writes the file, how to use it and a model card; gives the file. Raises UserError where it does not agree."""
    from thaw.config import build
    from thaw.config.restore import restore
    from thaw.exporting.card import model_card
    from thaw.exporting.formats import FORMATS, write
    from thaw.exporting.images import ImageInferenceModel
    from thaw.exporting.texts import TextInferenceModel
    from thaw.exporting.verify import require_agreement
    from thaw.runs.folder import RunFolder
    from thaw.types import ImageSpec, TokenSpec

    if cfg.format not in FORMATS:
        raise UserError(f"format is {', '.join(FORMATS)}, not '{cfg.format}'")
    run = RunFolder(cfg.run)
    was, data = restore(run, cfg.data)
    kind = {ImageSpec: ImageInferenceModel, TokenSpec: TextInferenceModel}[data.takes]
    deployed = kind(was.network, was.backbone, build.task(was.cfg, len(was.class_names)), was.class_names)
    folder = Path(cfg.output).expanduser() if cfg.output is not None else run.path / "export" / cfg.format
    folder.mkdir(parents=True, exist_ok=True)
    # Only what was loaded again and agreed goes into the folder.
    with tempfile.TemporaryDirectory(dir=folder) as made, tempfile.TemporaryDirectory() as samples:
        file = write(deployed, cfg.format, Path(made))
        size = sum(part.stat().st_size for part in Path(made).glob("model.*")) / 1e6
        difference = require_agreement(deployed, cfg.format, file, deployed.samples(data, cfg.samples, Path(samples)))
        card = model_card(deployed, cfg.format, file.name, build.plan(was.cfg, was.network), _origin(run, was))
        file.with_name("model_card.md").write_text(card, encoding="utf-8")
        for part in Path(made).iterdir():
            os.replace(part, folder / part.name)
    print(
        f"{folder / file.name}: {size:.2f} MB, {cfg.samples} {deployed.things}: same classes, "
        f"probabilities differ by at most {difference:.1e}"
    )
    return folder / file.name


def _origin(run: "RunFolder", was: "Trained") -> "Origin":
    from thaw.data.samples import counts_by_label
    from thaw.data.splits import SPLITS
    from thaw.exporting.card import Origin

    backbone, optimizer = was.cfg.backbone, was.cfg.optimizer
    return Origin(
        name=Path(backbone.get("name", "")).name or backbone._target_.rsplit(".", 1)[-1],
        weights=Path(str(was.cfg.init_from or backbone.get("weights"))).name,
        optimizer=f"{optimizer.optimizer._target_.rsplit('.', 1)[-1]}, head's rate {optimizer.lr:g}, "
        f"the backbone's x {optimizer.backbone_lr_scale:g}, each stage below x {optimizer.lr_decay:g}",
        seed=was.cfg.seed,
        counts=counts_by_label(run.samples(), SPLITS),
        metrics=run.metrics(),
    )


if __name__ == "__main__":
    main()
