"""Recall of each class over the folds of a sweep. `F` is the number of folds, `C` of classes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.errors import UserError
from thaw.manifest import naming_damage, require_intact
from thaw.runs.confusion import Confusion, read_confusion
from thaw.runs.files import CONFUSION_FILE

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FOLD = "data.fold"


def read_folds(varied: Mapping[Path, Mapping[str, str]]) -> dict[str, list[Confusion]]:
    """Read the test confusion of each fold, grouped by the other choices that vary.

    Trials without a fold, without a test, or with other classes than the first are left out.

    Args:
        varied: by trial folder, the overrides whose values differ between trials.

    Returns:
        Confusion matrices by choice, `key=value ...`; the key is "" if only the fold varies.
    """
    by_choice: dict[str, list[Confusion]] = {}
    first: Confusion | None = None
    for folder, overrides in varied.items():
        file = folder / CONFUSION_FILE
        if overrides.get(FOLD, "null") == "null" or not file.is_file():
            continue
        try:
            with naming_damage(file):
                confusion = read_confusion(require_intact(file, "Its fold is left out"))
        except UserError as error:
            log.warning("%s", error)
            continue
        first = first or confusion
        if confusion.class_names == first.class_names:
            choice = " ".join(f"{key}={value}" for key, value in overrides.items() if key != FOLD)
            by_choice.setdefault(choice, []).append(confusion)
    return by_choice


def recall_table(folds: Mapping[str, Sequence[Confusion]]) -> list[list[str]]:
    """Build the header and one row per class: samples tested, then mean and deviation of the recall for each choice.

    If the choices tested different numbers of samples, the row lists one number per choice. Without folds there are no
    rows, not even a header.
    """
    if not folds:
        return []
    import torch  # here, because commands that read sweeps must not make `--help` wait for it

    counts = [torch.tensor([confusion.counts for confusion in tests]) for tests in folds.values()]
    tested = [count.sum((0, 2)).tolist() for count in counts]
    columns = [column for count in counts for column in mean_and_deviation(recalls(count))]
    header = ["class", "tested"]
    for choice, tests in folds.items():
        prefix = f"{choice}: " if choice else ""
        header += [f"{prefix}mean recall of {len(tests)} folds", f"{prefix}deviation"]
    rows = [header]
    class_names = next(iter(folds.values()))[0].class_names
    for name, samples, *values in zip(class_names, zip(*tested, strict=True), *columns, strict=True):
        printable = name.encode(errors="replace").decode()  # folder names need not be valid in any encoding
        number = " / ".join(map(str, samples if len(set(samples)) > 1 else samples[:1]))
        rows.append([printable, number, *(f"{value:.4f}" for value in values)])
    return rows


def recalls(counts: "Tensor") -> "Tensor":
    """Recall (F, C) from counts (F, C, C), true class by predicted class; nan if a fold tests no sample of a class."""
    from thaw.indexing import diagonals  # here, because it imports torch

    return diagonals(counts) / counts.sum(2)


def mean_and_deviation(values: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Mean (C,) and sample standard deviation (C,) over the folds of values (F, C), leaving out nan.

    The deviation is nan where fewer than two folds have a value.
    """
    mean = values.nanmean(0)
    squares = (values - mean).square().nansum(0)
    degrees_of_freedom = (~values.isnan()).sum(0) - 1
    return mean, (squares / degrees_of_freedom.clamp(min=0)).sqrt()
