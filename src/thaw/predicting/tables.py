"""The tables that predictions are written to: CSV and JSON lines."""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from thaw.console import progress
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.predicting.predictions import Prediction
from thaw.storage import UNFINISHED


class OutputFiles(NamedTuple):
    """The two files of predictions, with the same content."""

    csv: Path
    jsonl: Path


def output_files(output: str | None, run_folder: Path, source: str) -> OutputFiles:
    """Name the files, and make their folder: `output` and a suffix, or `predictions_<source>` in the run folder.

    Raises:
        UserError: if one of them is the file `source`.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(source).stem) or "input"
    name = name.encode()[:60].decode(errors="ignore")  # file systems count bytes
    default = str(run_folder / f"predictions_{name}")
    stem = default if output is None else output.removesuffix(".csv").removesuffix(".jsonl")
    files = OutputFiles(Path(f"{stem}.csv"), Path(f"{stem}.jsonl"))
    files.csv.parent.mkdir(parents=True, exist_ok=True)
    if any(os.path.exists(source) and file.exists() and file.samefile(source) for file in files):
        raise UserError(f"output={output} would take the place of {source}: name another output")
    return files


def write_predictions(
    predictions: Iterable[Prediction],
    dataset: PredictionDataset,
    class_names: Sequence[str],
    top_k: int,
    output: OutputFiles,
) -> list[str]:
    """Write a row per usable sample: its identity, label, confidence, `top_k` likeliest classes, all probabilities.

    The files appear under their names when they are complete.

    Returns:
        A line for each sample that was skipped.

    Raises:
        UserError: if no sample can be used, or `top_k` is below 1.
    """
    if top_k < 1:
        raise UserError(f"top_k is at least 1, not {top_k}")
    skipped = []
    unfinished = [file.with_name(file.name + UNFINISHED) for file in output]
    with ExitStack() as stack:
        table, jsonl = (stack.enter_context(file.open("w", newline="", encoding="utf-8")) for file in unfinished)
        rows = csv.writer(table)
        columns = [*dataset.columns, "label", "confidence", "top"]
        rows.writerow([*columns, *(f"p({name})" for name in class_names)])
        for index, probabilities, fault in progress(predictions, len(dataset), "predicting"):
            if probabilities is None:
                skipped.append(f"{dataset.place(index)}: {fault}")
                continue
            by_class = dict(zip(class_names, probabilities, strict=True))
            top = sorted(by_class.items(), key=lambda item: -item[1])[:top_k]
            values = [*dataset.identify(index), *top[0]]
            rows.writerow([*values, "; ".join(f"{name} {p:.4f}" for name, p in top), *probabilities])
            record = dict(zip(columns, [*values, top], strict=True)) | {"probabilities": by_class}
            jsonl.write(json.dumps(record, ensure_ascii=False) + "\n")
    if len(skipped) == len(dataset):
        for file in unfinished:
            file.unlink()
        raise UserError(f"none of the {len(dataset)} can be used:\n" + "\n".join(f"  {line}" for line in skipped))
    for temporary, final in zip(unfinished, output, strict=True):
        os.replace(temporary, final)
    return skipped
