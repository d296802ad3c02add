"""A file to give away, compared with the network it came from: `python -m thaw.export run=<folder> format=onnx`."""

from pathlib import Path

from omegaconf import DictConfig

from thaw.command import command


@command("export")
def main(cfg: DictConfig) -> None:
    export(cfg)


def export(cfg: DictConfig) -> Path:
    """Writes the file, how to use it and a model card; gives the file. Raises ValueError where it does not agree."""
    import tempfile

    from thaw import build
    from thaw.exporting.card import model_card
    from thaw.exporting.deployed import Deployed
    from thaw.exporting.formats import FORMATS
    from thaw.exporting.samples import odd_images
    from thaw.exporting.verify import require_agreement
    from thaw.run_folder import RunFolder, restore

    if cfg.format not in FORMATS:
        raise ValueError(f"format is {', '.join(FORMATS)}, not '{cfg.format}'")
    run = RunFolder(cfg.run)
    was, data = restore(run, cfg.data)
    deployed = Deployed(was.network, was.backbone, build.task(was.cfg, len(was.class_names)), was.class_names)
    folder = Path(cfg.output) if cfg.output is not None else run.path / "export"
    file = FORMATS[cfg.format](deployed, folder)
    with tempfile.TemporaryDirectory() as place:
        images = odd_images(data, cfg.samples, Path(place))
        difference = require_agreement(deployed, cfg.format, file, images)
    (folder / "model_card.md").write_text(
        model_card(run, was, deployed, cfg.format, file, build.plan(was.cfg, was.network)), encoding="utf-8"
    )
    size = file.stat().st_size / 1e6
    print(
        f"{file}: {size:.2f} MB, {cfg.samples} images: same classes, probabilities differ by at most {difference:.1e}"
    )
    return file


if __name__ == "__main__":
    main()
