"""The values that a report shows: plain ones, gathered from a run folder by somebody else.

C: classes or quantities. Times are in seconds, epochs count from 0, and are shown from 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from thaw.tasks.outputs import Outputs
from thaw.training.head_choice import HeadResult


@dataclass(frozen=True)
class Run:
    """One run, and how it ended."""

    name: str
    """Title of the report."""
    run_id: str
    began: datetime
    state: str
    """`finished`, `stopped` or `failed`."""
    message: str = ""
    """Why it stopped or failed, and what to type to go on."""
    log_lines: Sequence[str] = ()
    """Last lines of the log, for a failed run."""
    seconds: float | None = None
    """Duration."""
    device: str = ""
    """What it ran on, as a phrase: "1 GPU, bf16-mixed"."""


@dataclass(frozen=True)
class PhaseRow:
    """What one phase of the plan trained, gained and cost."""

    first_epoch: int
    last_epoch: int
    """Included."""
    trains: str
    """Stages or parts of them: "layer3, head"."""
    parameters: int
    """Number of parameters that train."""
    lr_scale: float
    """Factor on every learning rate."""
    best_before: float | None = None
    """Best value of the monitored metric in all epochs before the phase."""
    best_after: float | None = None
    """Best value until the end of the phase; None if it was never reached."""
    seconds: float | None = None
    peak_memory_gb: float | None = None
    """Peak memory of the accelerator."""
    cached: float | None = None
    """Share of the batches that came from the cache, 0..1."""


@dataclass(frozen=True)
class Training:
    """What was logged while the run trained."""

    monitor: str
    """Name of the metric that chose the best epoch: "accuracy/val"."""
    mode: str
    """max or min."""
    best_epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics by name: category/split. Names without one of the splits are not shown."""
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]] = field(default_factory=dict)
    """By category and split: pairs of epoch and value."""
    phases: Sequence[PhaseRow] = ()


@dataclass(frozen=True)
class SampleView:
    """A sample as a reader sees it."""

    name: str
    """File name, or whatever identifies it."""
    texts: tuple[str, ...] = ()
    """The whole text, or both of a pair; empty for an image."""
    image: bytes | None = None
    """JPEG or PNG file; to keep a report small, the longer side has at most 160 pixels."""


@dataclass(frozen=True)
class Look:
    """Where the network looked in one sample: an image, or tokens."""

    index: int
    """Index of the sample, one of the split that is reported."""
    image: bytes | None = None
    """JPEG or PNG file: the sample under a heat map."""
    tokens: Sequence[tuple[str, float]] = ()
    """Pairs of a token and its weight in -1..1; positive ones speak for what is explained."""


@dataclass(frozen=True)
class Picture:
    """A drawing for one section."""

    section: str
    """Anchor of the section."""
    caption: str
    """What it shows; also its text for those who cannot see it."""
    drawing: str
    """Text of an SVG file, or a `data:` URI."""


@dataclass(frozen=True)
class Reproduction:
    """What is needed to repeat a run."""

    command: str
    config_yaml: str
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """All values of a report. What is empty or None is left out of it."""

    run: Run
    network: str
    """Backbone and the weights it started from, as a phrase."""
    things: str
    """What the samples are: images or texts."""
    class_names: Sequence[str]
    """In the order of the outputs, (C,)."""
    counts: Mapping[str, int]
    """Number of samples by split, in the order of columns."""
    training: Training
    reproduction: Reproduction
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    """Of the best weights, by split: val, test. The report is about test, or about val if there is no test."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """What val has decided about the outputs, as `Task.calibration` returns it."""
    heads: Sequence[HeadResult] = ()
    """Candidates for the head after training; none if there was no choice."""
    averaged: Mapping[str, Any] = field(default_factory=dict)
    """Of weights that were averaged: what was tried, as `soup.json` has it."""
    samples: Mapping[int, SampleView] = field(default_factory=dict)
    """By index: those that `Results.wanted` names, and those of `looks`."""
    looks: Sequence[Look] = ()
    baselines: Mapping[str, float] = field(default_factory=dict)
    """Scores of simple methods on the reported split, by name; of the same measure as `Results.score`."""
    data_report: str = ""
    """Content of data.txt: counts of labels and warnings."""
    data_warnings: Sequence[str] = ()
    """Warnings of the data report, one each, for the top of the page."""
    pictures: Sequence[Picture] = ()

    @property
    def split(self) -> str | None:
        """The split that the report is about; None if nothing was measured."""
        return next((split for split in ("test", "val") if split in self.outputs), None)
