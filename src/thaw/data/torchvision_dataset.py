"""Labelled image data sets of torchvision, by the names of their classes."""

import difflib
import inspect
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset
from torchvision import datasets

from thaw.console import progress
from thaw.data.class_labels import ClassLabels
from thaw.errors import UserError
from thaw.signatures import keywords
from thaw.storage import digest

UNSAFE = "LSUN"
"""Reads a pickle in its folder, which may run code. (CIFAR does so, too, after comparing a checksum.)"""
SPLIT_OPTIONS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
"""Values of the `split` argument of torchvision's classes that stand for each of our splits, best first."""
LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
"""Attributes in which torchvision's classes keep the labels of all samples."""


class TorchvisionDataset:
    """Source of `torchvision.datasets.<name>` and the splits that it has; a missing split is cut from train.

    Args:
        name: Name of a class in `torchvision.datasets`.
        root: Folder of its files.
        download: Whether to download the files into `root`.
        options: More arguments of the class.

    Raises:
        UserError: if the data set is unknown or not there, or does not hold images with one label each.
    """

    def __init__(self, name: str, root: str, download: bool, options: Mapping[str, Any] | None):
        parts = _splits(name, root, download, dict(options or {}))
        labels = {split: _labels(name, part) for split, part in parts.items()}
        self.settings, self.root = [name, options], Path(root).expanduser()
        self.samples: ConcatDataset[Any] = ConcatDataset(list(parts.values()))
        numbered = ClassLabels.numbered([label for names in labels.values() for label in names])
        self.class_names, self.targets = numbered.names, numbered.targets
        self.splits = [split or None for split, names in labels.items() for _ in names]
        self.names = [f"{name} {split} {number}" for split, part in labels.items() for number in range(len(part))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.samples[index][0], self.targets[index]

    @cached_property
    def version(self) -> str:
        """Digest of the settings and of size and time of every file; no image is read."""
        return digest(json.dumps(self.settings, sort_keys=True, default=str), *_fingerprints(self.root))


def _fingerprints(folder: Path) -> Iterator[str]:
    """Yield path, size and modification time of each file in a folder and its subfolders, in a fixed order."""
    seen = set()
    for path, subfolders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(path)) in seen:  # links in a circle
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for file in sorted(Path(path, name) for name in names):
            status = file.stat() if file.exists() else file.lstat()  # a link to nothing
            yield f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}"


def _splits(name: str, root: str, download: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Return the data set of each split; one data set under "" if it is not split."""
    names = [known for known in datasets.__all__ if inspect.isclass(getattr(datasets, known)) and known != UNSAFE]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=5, cutoff=0.3)
        raise UserError(f"torchvision has no data set '{name}'. Similar names: {', '.join(close)}")
    cls = getattr(datasets, name)
    arguments = keywords(cls)
    if "root" in arguments:
        options["root"] = root
    if "download" in arguments:
        options["download"] = download
    elif download:
        raise UserError(f"torchvision does not download {name}: get it by hand, see its documentation")
    if "train" in arguments and "train" not in options:
        return {split: _dataset(cls, {**options, "train": split == "train"}) for split in ("train", "test")}
    if "split" not in arguments or "split" in options:
        return {"": _dataset(cls, options)}
    parts: dict[str, Any] = {}
    for split, values in SPLIT_OPTIONS.items():
        for value in values:
            if split not in parts:
                with suppress(UnknownSplitError):
                    parts[split] = _dataset(cls, {**options, "split": value})
    if "train" not in parts:
        raise UserError(f"{name} has no split train: say which to take, data.options={{split: <name>}}")
    return parts


class UnknownSplitError(UserError):
    """A data set has no split of that name."""


def _dataset(cls: type, options: dict[str, Any]) -> Any:
    try:
        return cls(**options)
    except TypeError as error:
        raise UserError(f"{cls.__name__}: {error}. Its arguments go into data.options={{key: value}}") from error
    except ValueError as error:
        kind = UnknownSplitError if "Unknown value" in str(error) and "split" in str(error) else UserError
        raise kind(f"{cls.__name__}: {error}") from error
    except (RuntimeError, OSError) as error:  # files are missing or damaged, or there is no network
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{cls.__name__}: {reason} Looked in {options.get('root')}: data.root=<folder> names "
            f"another place, data.download=true downloads it."
        ) from error


def _labels(name: str, dataset: Any) -> Sequence[str]:
    """Return the class name of each sample; images are decoded only if the data set does not keep its labels."""
    attributes = (getattr(dataset, attribute, None) for attribute in LABEL_ATTRIBUTES)
    # One number for each sample; QMNIST has columns of them.
    numbers = next((a for a in attributes if a is not None and np.shape(a) == (len(dataset),)), None)
    if numbers is None:
        numbers = [dataset[i][1] for i in progress(range(len(dataset)), len(dataset), f"labels of {name}")]
    try:
        numbers = [int(number) for number in numbers]
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is not a data set of images with one class each") from error
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if classes is None or len(classes) <= max(numbers):
        width = len(str(max(numbers)))  # so that they sort as numbers do
        return [str(number).zfill(width) for number in numbers]
    names = [name if isinstance(name, str) else ", ".join(name) for name in classes]
    # ImageNet has two kinds of `crane`: they must not become one class.
    times = Counter(names)
    names = [name if times[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]
    return [names[number] for number in numbers]
