"""Classify with a finished run: `python -m thaw.predict run=<folder> input=<image, folder, glob, table or text>`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.imports import library_imports

if TYPE_CHECKING:
    from thaw.predicting.dataset import PredictionDataset
    from thaw.types import InputSpec


@command("predict", as_typed="input")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    predict(cfg)


def predict(cfg: DictConfig) -> Path:
    """Write a row for each sample of `cfg.input`, list the unusable ones, count by class, and return the CSV file."""
    with library_imports():
        from thaw.config.assemble import trained
        from thaw.predicting.predictions import predictions
        from thaw.predicting.tables import count_table, output_files, write_predictions
        from thaw.runs.folder import RunFolder
        from thaw.storage import writing_to

    parts = trained(cfg.run, cfg.trust)
    if cfg.calibrate:
        RunFolder(cfg.run).calibrate(parts.module.task)
    dataset = _dataset(cfg, parts.cfg.data, parts.backbone.input_spec)
    results = predictions(dataset, parts.network, parts.module.task, cfg.batch_size, cfg.num_workers, cfg.device)
    output = output_files(cfg.output, Path(cfg.run).resolve(), cfg.input, dataset.names)
    with writing_to(output.csv.parent):
        skipped, counts = write_predictions(
            results, dataset, parts.module.task, parts.module.class_names, cfg.top_k, output
        )
    if skipped:
        print(f"skipped, {len(skipped)} of {len(dataset)}:", *(f"  {line}" for line in skipped), sep="\n")
    for note in dataset.notes():
        print(note)
    if len(dataset) == 1:
        print(output.jsonl.read_text(encoding="utf-8"), end="")
    else:
        print(count_table(counts, len(dataset) - len(skipped)) if counts else "", end="")
    print(*output, sep="\n")
    return output.csv


def _dataset(cfg: DictConfig, data: DictConfig, spec: "InputSpec") -> "PredictionDataset":
    """The samples that `cfg.input` names. Tables are read with the run's settings `data`, unless `cfg` has others."""
    from thaw.predicting.images import read_images  # here, so that --help is fast
    from thaw.predicting.texts import read_texts
    from thaw.types import ImageSpec, TokenSpec

    readers: dict[type, Any] = {
        ImageSpec: (partial(read_images, root=cfg.root), data.get("path_column", "path")),
        TokenSpec: (read_texts, data.get("text")),
    }
    read, recorded_column = readers[type(spec)]
    encoding = cfg.encoding or data.get("encoding", "utf-8-sig")
    quotes = data.get("quotes", True) if cfg.quotes is None else cfg.quotes
    return read(cfg.input, cfg.column or recorded_column, encoding, quotes, spec)


if __name__ == "__main__":
    main()
