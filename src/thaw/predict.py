"""Classify with a finished run: `python -m thaw.predict run=<folder> input=<image, folder, glob, table or text>`."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError

if TYPE_CHECKING:
    from thaw.config.restore import Trained
    from thaw.predicting.dataset import PredictionDataset


@command("predict")
def main(cfg: DictConfig) -> None:
    predict(cfg)


def predict(cfg: DictConfig) -> Path:
    """Writes a row a sample; gives the CSV file. What cannot be used is listed and skipped."""
    from thaw.config import build
    from thaw.config.restore import trained
    from thaw.predicting.tables import output_files, predictions, write
    from thaw.runs.folder import RunFolder

    run = RunFolder(cfg.run)
    was = trained(run)
    task = build.task(was.cfg, len(was.class_names))
    others: list[str] = []
    if not isinstance(cfg.input, str):
        raise UserError(
            f"input={cfg.input} is no text to Hydra: put it into quotes of its own, \"input='{cfg.input}'\""
        )
    asked = _asked(cfg, was, others)
    found = predictions(asked, was.network, task, cfg.batch_size, cfg.num_workers, cfg.device)
    output = output_files(cfg.output, run.path, cfg.input)
    skipped = write(found, asked, was.class_names, cfg.top_k, output)
    if skipped:
        print(f"{len(skipped)} of {len(asked)} were skipped:", *(f"  {line}" for line in skipped), sep="\n")
    for note in asked.notes():
        print(note)
    if others:
        print(f"{len(others)} others were not used:", *(f"  {line}" for line in others[:20]), sep="\n")
    if len(asked) == 1:
        print(output.jsonl.read_text(encoding="utf-8"), end="")
    print(*output, sep="\n")
    return output.csv


def _asked(cfg: DictConfig, was: "Trained", others: list[str]) -> "PredictionDataset":
    """What `cfg.input` means to the network; to `others` goes what else is there."""
    from thaw.predicting.images import ImagePredictionDataset, input_files
    from thaw.predicting.texts import TextPredictionDataset, input_texts
    from thaw.types import TokenSpec

    data, spec = was.cfg.data, was.backbone.input_spec
    encoding = cfg.encoding or data.get("encoding", "utf-8-sig")
    quotes = data.get("quotes", True) if cfg.quotes is None else cfg.quotes
    if isinstance(spec, TokenSpec):
        column = cfg.column or data.text
        return TextPredictionDataset(input_texts(cfg.input, column, encoding, quotes), column, spec)
    column = cfg.column or data.get("path_column", "path")
    return ImagePredictionDataset(input_files(cfg.input, column, encoding, quotes, others), spec)


if __name__ == "__main__":
    main()
