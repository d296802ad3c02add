"""Labelled samples and their splits."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray

from thaw.data.class_labels import ClassLabels
from thaw.data.duplicates import identical_samples
from thaw.data.groups import groups_apart, unnamed_groups
from thaw.data.labels import Labels
from thaw.data.report import format_list
from thaw.data.samples import UNUSED, Sample, SampleRecord
from thaw.data.source import Source, read_facts
from thaw.data.splits import few_per_class, one_stratum
from thaw.data.splitting import make_splits, splits_as_recorded, splits_of_new_data
from thaw.errors import UserError
from thaw.types import Indices


class LabelledData(LightningDataModule):
    """Samples with their labels, cut into train, val and test. The subclass `DataModule` makes batches of them.

    Call `split`, `split_as` or `test_all` before anything that needs the splits.

    Args:
        source: the samples.
        kind: kind of their labels.
        seed: seed of the splits.
        val_fraction: share of all samples that goes to val.
        test_fraction: share of all samples that goes to test.
        labels_per_class: training samples of each class; None for all. Only where each sample has one class.
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
        kind: type[Labels] = ClassLabels,
    ):
        super().__init__()
        self.source, self.facts = source, read_facts(source, kind)
        self.labels = self.facts.labels
        if labels_per_class is not None and not kind.one_class:
            raise UserError(
                f"data.labels_per_class takes samples of each class, and task={kind.task} has no single one for each: "
                f"type data.labels_per_class=null"
            )
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
        warnings = self.facts.warnings + self.labels.warnings(self.parts)
        if self.facts.groups is not None:
            warnings += groups_apart(self.parts, self.facts.groups)
        elif self.facts.names is not None:
            warnings += unnamed_groups(self.facts.names, self.num_classes)
        if self.facts.digests is None:
            return warnings
        return warnings + identical_samples(self.parts, self.labels, self.facts)

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
        self.splits = make_splits(self.labels, self.given_splits, **self.split_settings, equal=equal, groups=groups)
        self.train_indices = self.splits.train
        if self.labels_per_class is not None:
            self.train_indices = few_per_class(self.train_indices, self.targets, self.labels_per_class, self.seed)

    def split_as(self, records: Sequence[SampleRecord]) -> None:
        """Split as a run did, whatever was added since. Raises UserError if samples of the run are gone."""
        labels = [self.labels.text(index) for index in range(len(self.labels))]
        self.splits = splits_as_recorded(self.identities(), labels, records)
        self.train_indices = self.splits.train

    def test_all(self, but: Collection[str]) -> None:
        """Split for measuring a finished run on other data, without samples whose content is in `but`."""
        self.splits = splits_of_new_data(self.identities(), self.given_splits, but)
        self.train_indices = self.splits.train

    def identities(self) -> list[Sample]:
        """Identity of each sample, by which later runs recognise it."""
        return [self.identity(index) for index in range(len(self.labels))]

    def records(self) -> list[SampleRecord]:
        """Every sample with its label and split, for later commands."""
        split_of = {index: name for name, indices in self.parts.items() for index in indices.tolist()}
        return [
            SampleRecord(self.identity(index), self.labels.text(index), split_of.get(index, UNUSED))
            for index in range(len(self.labels))
        ]

    @property
    def parts(self) -> dict[str, Indices]:
        """Sample indices of each split: train, val and test; some may be empty."""
        return {"train": self.train_indices, "val": self.splits.val, "test": self.splits.test}

    # Labels.

    @property
    def targets(self) -> NDArray[Any]:
        """What the network learns of each sample: class indices (N,), or a row for each, (N, C)."""
        return self.labels.targets

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, or of the quantities, in the order of the network's outputs."""
        return self.labels.names

    @property
    def num_classes(self) -> int:
        """Number of classes, or of quantities."""
        return len(self.class_names)

    @property
    def strata(self) -> NDArray[np.int64]:
        """One class for each sample, (N,): of several the rarest; of numbers, to which part of them they belong."""
        return one_stratum(self.labels.strata)

    def align(self, class_names: Sequence[str]) -> None:
        """Put labels in the order of a trained network's `class_names`. Raises UserError for one not in there."""
        self.labels = self.labels.aligned(class_names)

    # For people.

    def summary(self) -> str:
        """The report in a line or two, for the start of a run."""
        sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in self.parts.items())
        lines = [f"data: {sizes} samples of {self.labels.what()}"]
        if left_out := self.facts.left_out:
            lines.append(f"{len(left_out)} samples were left out: data.txt names them")
        return "\n".join([*lines, *(f"warning: {warning.splitlines()[0]}" for warning in self.warnings())])

    def report(self) -> str:
        """The labels of each split, what was left out, and what is odd."""
        lines = [self.labels.table(self.parts).rstrip()]
        if (groups := self.facts.groups) is not None:
            shares = [f"{len({groups[i] for i in part}):,} in {name}" for name, part in self.parts.items()]
            lines.append(f"{len(set(groups)):,} groups: {', '.join(shares)}")
        if left_out := self.facts.left_out:
            lines.append(format_list("left out: they cannot be used", left_out, most=len(left_out)))
        lines += [f"warning: {warning}" for warning in self.warnings()]
        if self.facts.notes:
            lines.append(format_list("not used", self.facts.notes))
        return "\n".join(lines)
