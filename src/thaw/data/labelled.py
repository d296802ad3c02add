"""Labelled samples and their splits."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from lightning import LightningDataModule

from thaw.data.groups import groups_apart, unnamed_groups
from thaw.data.report import counts_table, format_list, identical_samples, missing_classes, similar_classes
from thaw.data.samples import UNUSED, Sample, SampleRecord
from thaw.data.source import Source, read_facts
from thaw.data.spellings import spelling_hint
from thaw.data.splits import few_per_class
from thaw.data.splitting import make_splits, splits_as_recorded, splits_of_new_data
from thaw.errors import UserError
from thaw.types import Indices


class LabelledData(LightningDataModule):
    """Samples with one class each, cut into train, val and test. The subclass `DataModule` makes batches of them.

    Call `split`, `split_as` or `test_all` before anything that needs the splits.

    Args:
        source: the samples.
        seed: seed of the splits.
        val_fraction: share of all samples that goes to val.
        test_fraction: share of all samples that goes to test.
        labels_per_class: training samples of each class; None for all.
        fold: number of the fold that is the test split; None for no cross-validation.
        folds: number of folds.

    Raises:
        UserError: the source is not as `Source` says.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        val_fraction: float,
        test_fraction: float,
        labels_per_class: int | None,
        fold: int | None,
        folds: int,
    ):
        super().__init__()
        self.source, self.facts = source, read_facts(source)
        self.targets, self.class_names = self.facts.targets, self.facts.class_names
        self.given_splits = self.facts.splits if any(self.facts.splits or ()) else None
        self.seed, self.labels_per_class = seed, labels_per_class
        self.split_settings: dict[str, Any] = {
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "fold": fold,
            "folds": folds,
            "seed": seed,
        }

    def identity(self, index: int) -> Sample:
        """Identity by which later runs recognise a sample."""
        digests = self.facts.digests
        return Sample(self.facts.name(index), "" if digests is None else digests[index])

    def warnings(self) -> list[str]:
        """Warnings about the data; the first line of each is a summary."""
        warnings = (
            self.facts.warnings
            + similar_classes(self.class_names)
            + missing_classes(self.parts, self.targets, self.class_names)
        )
        if self.facts.groups is not None:
            warnings += groups_apart(self.parts, self.facts.groups)
        elif self.facts.names is not None:
            warnings += unnamed_groups(self.facts.names, self.num_classes)
        if self.facts.digests is None:
            return warnings
        return warnings + identical_samples(self.parts, self.targets, self.facts)

    # Splits.

    def split(self) -> None:
        """Split as the data and the settings say.

        Samples of a group share a split (without groups: equal samples), unless the data say otherwise.

        Raises UserError if the settings do not fit the samples.
        """
        equal, groups = (
            None if names is None else np.unique(names, return_inverse=True)[1]
            for names in (self.facts.digests, self.facts.groups)
        )
        self.splits = make_splits(
            self.targets, self.class_names, self.given_splits, **self.split_settings, equal=equal, groups=groups
        )
        self.train_indices = self.splits.train
        if self.labels_per_class is not None:
            self.train_indices = few_per_class(self.train_indices, self.targets, self.labels_per_class, self.seed)

    def split_as(self, records: Sequence[SampleRecord]) -> None:
        """Split as a run did, whatever was added since. Raises UserError if samples of the run are gone."""
        labels = [self.class_names[target] for target in self.targets]
        self.splits = splits_as_recorded(self.identities(), labels, records)
        self.train_indices = self.splits.train

    def test_all(self, but: Collection[str]) -> None:
        """Split for measuring a finished run on other data, without samples whose content is in `but`."""
        self.splits = splits_of_new_data(self.identities(), self.given_splits, but)
        self.train_indices = self.splits.train

    def identities(self) -> list[Sample]:
        """Identity of each sample, by which later runs recognise it."""
        return [self.identity(index) for index in range(len(self.targets))]

    def records(self) -> list[SampleRecord]:
        """Every sample with its label and split, for later commands."""
        split_of = {index: name for name, indices in self.parts.items() for index in indices.tolist()}
        return [
            SampleRecord(self.identity(index), self.class_names[target], split_of.get(index, UNUSED))
            for index, target in enumerate(self.targets)
        ]

    @property
    def parts(self) -> dict[str, Indices]:
        """Sample indices of each split: train, val and test; some may be empty."""
        return {"train": self.train_indices, "val": self.splits.val, "test": self.splits.test}

    # Classes.

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def counts(self, indices: Indices) -> list[int]:
        """Number of these samples in each class."""
        return np.bincount(self.targets[indices], minlength=self.num_classes).tolist()

    def align(self, class_names: Sequence[str]) -> None:
        """Renumber the classes as in a trained network's `class_names`. Raises UserError for a class not in there."""
        if unknown := [name for name in self.class_names if name not in class_names]:
            raise UserError(
                f"the network was trained on the classes {', '.join(class_names)}; this data also has "
                f"{', '.join(unknown)}: leave it out, or start a new run with init_from=..."
                + spelling_hint([*class_names, *unknown])
            )
        new_number = np.array([class_names.index(name) for name in self.class_names])
        self.targets, self.class_names = new_number[self.targets], list(class_names)

    # For people.

    def summary(self) -> str:
        """The report in a line or two, for the start of a run."""
        sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in self.parts.items())
        lines = [f"data: {sizes} samples of {self.num_classes} classes"]
        if left_out := self.facts.left_out:
            lines.append(f"{len(left_out)} samples were left out: data.txt names them")
        return "\n".join([*lines, *(f"warning: {warning.splitlines()[0]}" for warning in self.warnings())])

    def report(self) -> str:
        """Samples of each class and split, what was left out, and what is odd."""
        counts = {name: self.counts(part) for name, part in self.parts.items()}
        lines = [counts_table(self.class_names, counts).rstrip()]
        if (groups := self.facts.groups) is not None:
            shares = [f"{len({groups[i] for i in part}):,} in {name}" for name, part in self.parts.items()]
            lines.append(f"{len(set(groups)):,} groups: {', '.join(shares)}")
        if left_out := self.facts.left_out:
            lines.append(format_list("left out: they cannot be used", left_out, most=len(left_out)))
        lines += [f"warning: {warning}" for warning in self.warnings()]
        if self.facts.notes:
            lines.append(format_list("not used", self.facts.notes))
        return "\n".join(lines)
