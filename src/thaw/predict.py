"""Classify with a finished run: `python -m thaw.predict run=<folder> input=<image, folder, glob, table or text>`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.imports import library_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thaw.config.assemble import Parts
    from thaw.predicting.dataset import PredictionDataset
    from thaw.types import InputSpec


@command("predict", as_typed="input")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    predict(cfg)


def predict(cfg: DictConfig) -> Path:
    """Write a row for each sample of `cfg.input`, list the unusable ones, count by class, and return the CSV file.

    With `cfg.ensemble`, predictions are the mean over the trials of a sweep.
    """
    with library_imports():
        from thaw.config.assemble import trained
        from thaw.predicting.predictions import predictions
        from thaw.predicting.tables import count_table, output_files, write_predictions
        from thaw.runs.folder import RunFolder
        from thaw.storage import writing_to

    folders = [Path(cfg.run)] if cfg.ensemble is None else _members(Path(cfg.ensemble))
    members = [trained(str(folder), cfg.trust) for folder in folders]
    parts, modules = members[0], [member.module for member in members]
    _require_alike(folders, members)
    if cfg.calibrate:
        for folder, module in zip(folders, modules, strict=True):
            RunFolder(folder).calibrate(module.task)
    dataset = _dataset(cfg, parts.cfg.data, parts.backbone.input_spec)
    models = [(module.network, module.task) for module in modules]
    results = predictions(dataset, models, cfg.batch_size, cfg.num_workers, cfg.device)
    place = Path(cfg.run if cfg.ensemble is None else cfg.ensemble).resolve()
    output = output_files(cfg.output, place, cfg.input, dataset.names)
    task = parts.module.task.averaged([module.task for module in modules])
    with writing_to(output.csv.parent):
        skipped, counts = write_predictions(results, dataset, task, parts.module.class_names, cfg.top_k, output)
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


def _members(sweep: Path) -> list[Path]:
    """Folders of the finished trials of a sweep. Raises UserError if there are none."""
    from thaw.errors import UserError
    from thaw.runs.trials import read_trials

    finished = [trial.folder for trial in read_trials(sweep) if trial.results] if sweep.is_dir() else []
    if not finished:
        raise UserError(f"{sweep} holds no finished trials: name the folder of a sweep, or type run=<run folder>")
    return finished


def _require_alike(folders: "Sequence[Path]", members: "Sequence[Parts]") -> None:
    """Raise UserError if the runs do not take the same inputs, or have other classes."""
    from thaw.errors import UserError

    first = members[0]
    for folder, other in zip(folders, members, strict=True):
        if other.module.class_names != first.module.class_names:
            raise UserError(f"{folder} has other classes than {folders[0]}: they cannot be averaged")
        if other.backbone.input_spec != first.backbone.input_spec:
            raise UserError(f"the network of {folder} takes other inputs than that of {folders[0]}: predict with each")


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
