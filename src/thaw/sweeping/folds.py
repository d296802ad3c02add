"""The recall of each class over the folds of a sweep, and the table of it. `F` folds, `C` classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.runs.confusion import CONFUSION_FILE, Confusion, read_confusion

if TYPE_CHECKING:
    from torch import Tensor

FOLD = "data.fold"


def read_folds(varied: Mapping[Path, Mapping[str, str]]) -> dict[str, list[Confusion]]:
    """The tests of the trials that are folds, by what varied besides: `key=value ...`, "" where nothing did.

    `varied`: by trial folder, the overrides that are not the same throughout. Trials that tested nothing are left out,
    and those whose classes are not the first one's.
    """
    found: dict[str, list[Confusion]] = {}
    first: Confusion | None = None
    for folder, overrides in varied.items():
        file = folder / CONFUSION_FILE
        if overrides.get(FOLD, "null") == "null" or not file.is_file():
            continue
        confusion = read_confusion(file)
        first = first or confusion
        if confusion.class_names == first.class_names:
            choice = " ".join(f"{key}={value}" for key, value in overrides.items() if key != FOLD)
            found.setdefault(choice, []).append(confusion)
    return found


def recall_table(folds: Mapping[str, Sequence[Confusion]]) -> list[list[str]]:
    """Header and one row a class: samples tested, then mean and deviation of the recall, by choice; [] of no folds.

    Where the choices did not test equally many samples, their numbers stand in the order of the columns.
    """
    if not folds:
        return []
    import torch  # here: what reads sweeps must not make `--help` wait

    counts = [torch.tensor([confusion.counts for confusion in tests]) for tests in folds.values()]
    tested = [count.sum((0, 2)).tolist() for count in counts]
    columns = [column for count in counts for column in mean_and_deviation(recalls(count))]
    header = ["class", "tested"]
    for choice, tests in folds.items():
        of = f"{choice}: " if choice else ""
        header += [f"{of}mean recall of {len(tests)} folds", f"{of}deviation"]
    rows = [header]
    class_names = next(iter(folds.values()))[0].class_names
    for name, samples, *values in zip(class_names, zip(*tested, strict=True), *columns, strict=True):
        printable = name.encode(errors="replace").decode()  # names of folders may be of no encoding at all
        number = " / ".join(map(str, samples if len(set(samples)) > 1 else samples[:1]))
        rows.append([printable, number, *(f"{value:.4f}" for value in values)])
    return rows


def recalls(counts: "Tensor") -> "Tensor":
    """(F, C, C), true class by predicted -> (F, C); nan where a fold tests no sample of a class."""
    from thaw.indexing import diagonals

    return diagonals(counts) / counts.sum(2)


def mean_and_deviation(values: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Over folds, without the nan: (F, C) -> mean (C,) and sample standard deviation (C,), nan of less than two."""
    mean = values.nanmean(0)
    squares = (values - mean).square().nansum(0)
    others = (~values.isnan()).sum(0) - 1
    return mean, (squares / others.clamp(min=0)).sqrt()
