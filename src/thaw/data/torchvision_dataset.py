"""Any labelled image data set of torchvision, by name."""

import difflib
import inspect
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset
from torchvision import datasets

from thaw.console import progress
from thaw.data.image_file import as_rgb
from thaw.data.image_module import ImageDataModule
from thaw.data.samples import Sample
from thaw.errors import UserError
from thaw.storage import digest
from thaw.types import Indices

SPLIT_NAMES = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
"""What torchvision's `split` argument calls them."""
LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
"""Where its classes keep the labels of all samples."""


class TorchvisionDataset(ImageDataModule):
    """`torchvision.datasets.<name>` with the splits that it has; a missing one is cut from train.

    `root`: where its files are, or go when `download` is true. `options`: more keywords of its class. Takes the
    keywords of `ImageDataModule` and `DataModule`. Raises UserError for data that is not images with one label each.
    """

    def __init__(self, name: str, root: str, download: bool, options: Mapping[str, Any] | None, **choices: Any):
        parts = _splits(name, root, download, dict(options or {}))
        labels = {split: _labels(name, part) for split, part in parts.items()}
        self.origin, self.root = [name, options], Path(root).expanduser()
        self.samples = [Sample(f"{name} {split} {i}") for split, part in labels.items() for i in range(len(part))]
        super().__init__(
            DatasetReader(ConcatDataset(list(parts.values()))),
            [label for names in labels.values() for label in names],
            [split or None for split, names in labels.items() for _ in names],
            **choices,
        )

    def identity(self, index: int) -> Sample:
        return self.samples[index]

    def contents(self, samples: Indices) -> list[str]:
        """Without reading any: of what the data set is made of, and of the sample's place in it."""
        return [digest(self._digest, self.samples[index].name) for index in samples.tolist()]

    @cached_property
    def _digest(self) -> str:
        return digest(json.dumps([self.origin, list(_fingerprints(self.root))], sort_keys=True, default=str))


class DatasetReader:
    """The images of a data set, without their labels."""

    def __init__(self, dataset: Dataset[Any]):
        self.dataset = dataset

    def __call__(self, index: int) -> Image.Image:
        return as_rgb(self.dataset[index][0])


def _fingerprints(folder: Path) -> Iterator[str]:
    """Of each file below it: place, size and time of the last change."""
    seen = set()
    for place, inside, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # links in a circle
            inside.clear()
            continue
        seen.add(real)
        inside.sort()  # in the same order each time
        for file in sorted(Path(place, name) for name in files):
            status = file.stat() if file.exists() else file.lstat()  # a link to nothing
            yield f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}"


def _splits(name: str, root: str, download: bool, options: dict[str, Any]) -> dict[str, Any]:
    """By train, val and test; one data set under "" where it comes in one piece."""
    make = getattr(datasets, name, None)
    known = [n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))]
    if name not in known or make is None:
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        raise UserError(f"torchvision has no data set '{name}'. Near it: {', '.join(close)}")
    keywords = _keywords(make)
    if "root" in keywords:
        options["root"] = root
    if "download" in keywords:
        options["download"] = download
    elif download:
        raise UserError(f"torchvision does not download {name}: get it by hand, see its documentation")
    if "train" in keywords and "train" not in options:
        return {"train": _made(name, make, train=True, **options), "test": _made(name, make, train=False, **options)}
    if "split" in keywords and "split" not in options:
        return _by_split(name, make, options)
    return {"": _made(name, make, **options)}


def _keywords(make: type) -> set[str]:
    """Also those that a class hands on to the one it is made of."""
    found: set[str] = set()
    for kind in make.__mro__:
        if "__init__" in vars(kind):
            parameters = inspect.signature(vars(kind)["__init__"]).parameters
            found |= parameters.keys()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    return found


def _by_split(name: str, make: Any, options: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for split, words in SPLIT_NAMES.items():
        for word in words:
            try:
                found[split] = _made(name, make, split=word, **options)
                break
            except UnknownSplitError:
                continue
    if "train" not in found:
        raise UserError(f"{name} has no split train: say which to take, data.options={{split: <name>}}")
    return found


class UnknownSplitError(ValueError):
    """A data set has no split of that name."""


def _made(name: str, make: Any, **options: Any) -> Any:
    try:
        return make(**options)
    except TypeError as error:
        raise UserError(f"{name}: {error}. Its keywords go into data.options={{key: value}}") from error
    except ValueError as error:
        if "split" in options and "Unknown value" in str(error):
            raise UnknownSplitError(str(error)) from error
        raise
    except RuntimeError as error:  # its files are not there, or not whole
        raise UserError(
            f"{name}: {str(error).splitlines()[0]} Looked in {options.get('root')}: data.root=<folder> names another "
            f"place, data.download=true gets it."
        ) from error


def _labels(name: str, dataset: Any) -> Sequence[str]:
    """The name of each sample's class, without decoding images where the data set keeps its labels at hand."""
    numbers = next((getattr(dataset, a) for a in LABEL_ATTRIBUTES if _fits(getattr(dataset, a, None), dataset)), None)
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


def _fits(values: Any, dataset: Any) -> bool:
    return hasattr(values, "__len__") and len(values) == len(dataset) and np.ndim(values) == 1  # QMNIST has columns
