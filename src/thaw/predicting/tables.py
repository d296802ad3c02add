"""The tables that predictions are written to: CSV and JSON lines."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.table import Column, Table

from thaw.console import as_text, progress
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.predicting.lines import STANDARD_INPUT
from thaw.predicting.predictions import Prediction
from thaw.storage import digest, require_writable, written_whole
from thaw.tasks.task import Task

MAX_LISTED = 20  # classes


class OutputFiles(NamedTuple):
    """The two files of predictions, with the same content."""

    csv: Path
    jsonl: Path


class Written(NamedTuple):
    """What was written: a line for each sample that was skipped, and how many samples got each class."""

    skipped: list[str]
    counts: Counter[str]


def output_files(output: str | None, run_folder: Path, source: str, names: Sequence[str]) -> OutputFiles:
    """Name the files, and make their folder: `output` and a suffix, or a name of their own in the run folder.

    Args:
        output: Path of the files without suffix; None for `predictions_<source>_<digest>` in the run folder, so that
            folders of the same name, globs and texts each have files of their own.
        run_folder: The run folder.
        source: What the user named: a path, a glob, a text, or `-`.
        names: Paths or texts of the samples.

    Raises:
        UserError: if one of them is the file `source`, or if their folder cannot be written to.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(source).stem).strip("-_") or "input"
    name = name.encode()[:60].decode(errors="ignore")  # file systems count bytes
    identity = names if source == STANDARD_INPUT else [os.path.abspath(source)]
    default = str(run_folder / f"predictions_{name}_{digest(*identity)[:8]}")
    stem = default if output is None else output.removesuffix(".csv").removesuffix(".jsonl")
    files = OutputFiles(Path(f"{stem}.csv").expanduser(), Path(f"{stem}.jsonl").expanduser())
    require_writable(files.csv.parent)
    if any(os.path.exists(source) and file.exists() and file.samefile(source) for file in files):
        raise UserError(f"output={output} would take the place of {source}: name another output")
    return files


def write_predictions(
    predictions: Iterable[Prediction],
    dataset: PredictionDataset,
    task: Task,
    class_names: Sequence[str],
    top_k: int,
    output: OutputFiles,
) -> Written:
    """Write a row per usable sample: its identity, and what the task says of it.

    The files appear under their names when they are complete.

    Raises:
        UserError: if no sample can be used.
    """
    skipped, counts = [], Counter[str]()
    with ExitStack() as stack:
        unfinished = [stack.enter_context(written_whole(file)) for file in output]
        # A file name that is not UTF-8 is escaped (\udce9), which JSON reads as that very name.
        table, jsonl = (
            stack.enter_context(file.open("w", newline="", encoding="utf-8", errors="backslashreplace"))
            for file in unfinished
        )
        rows = csv.writer(table)
        has_header = False
        for index, values, fault in progress(predictions, len(dataset), "predicting"):
            if values is None:
                skipped.append(f"{dataset.place(index)}: {fault}")
                continue
            result = task.describe(values, class_names, top_k)
            if not has_header:
                rows.writerow([*dataset.columns, *result.columns])
                has_header = True
            identity = dataset.identify(index)
            rows.writerow([*identity, *result.columns.values()])
            record = dict(zip(dataset.columns, identity, strict=True)) | result.record
            jsonl.write(json.dumps(record, ensure_ascii=False) + "\n")
            counts.update(result.counted)
        if len(skipped) == len(dataset):
            raise UserError(f"none of the {len(dataset)} can be used:\n" + "\n".join(f"  {line}" for line in skipped))
    return Written(skipped, counts)


def count_table(counts: Counter[str], total: int) -> str:
    """Return a text table of the number of samples by predicted class, and their share of all; the largest first."""
    table = Table("predicted class", Column("samples", justify="right"), Column("share", justify="right"))
    for name, count in counts.most_common(MAX_LISTED):
        table.add_row(escape(name), f"{count:,}", f"{count / total:.1%}")
    more = len(counts) - MAX_LISTED
    return as_text(table) + (f"... and {more} classes more, with fewer samples\n" if more > 0 else "")
