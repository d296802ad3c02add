"""Which weights go into an average: a greedy choice by validation, and points on a line (Wortsman et al. 2022)."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Trainer

from thaw.errors import UserError
from thaw.models.weights import read_shapes
from thaw.runs.files import INPUT_SPEC_FILE, MODULE_FILE, WEIGHTS_FILE, is_run
from thaw.runs.folder import RunFolder
from thaw.runs.outputs import latest_outputs
from thaw.runs.trials import ranked, read_trials, require_sweep
from thaw.training.averaging import Weights, between, changed_statistics, renew_statistics
from thaw.training.head_choice import HeadResult
from thaw.training.module import FineTuningModule
from thaw.training.refit import refit_head

log = logging.getLogger(__name__)


class Score(NamedTuple):
    """What weights are worth on validation: the greater tuple is the better one."""

    rank: tuple[float, float]
    """The monitored metric, negated if lower is better; then the negated loss, which decides between equals."""
    metric: float
    """The monitored metric."""
    loss: float


class Tried(NamedTuple):
    """Weights that were measured."""

    name: str
    """The run that was added to the average, or how far the weights lie from the probe."""
    score: Score
    taken: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.score.metric:.4f}, loss {self.score.loss:.4f}{', taken' if self.taken else ''}"

    def row(self) -> dict[str, Any]:
        """What a run folder keeps of it."""
        return {"name": self.name, "metric": self.score.metric, "loss": self.score.loss, "taken": self.taken}


class Soup(NamedTuple):
    """Averaged weights with their score, and everything that was tried on the way to them."""

    weights: Weights
    score: Score
    tried: list[Tried]


Measure = Callable[[Weights], Score]
"""Measures weights."""


class Validation:
    """Measures weights on validation samples, with what has to be fitted anew to an average.

    Those are the statistics of BatchNorm layers, where they were averaged, the head, and what the task settles by
    validation.

    Args:
        trainer: a trainer that may validate, with a CollectOutputs callback.
        module: the module that gets the weights. What they lack stays as it is in there.
        data: its data module.
        monitor: name of the metric that decides.
        mode: max or min.
        refit: whether the head is refitted, see `refit_head`.

    Attributes:
        heads: the candidates for the head of the weights measured last.

    Raises:
        UserError: validation does not measure what is monitored.
    """

    def __init__(
        self, trainer: Trainer, module: FineTuningModule, data: Any, monitor: str, mode: str, refit: bool
    ) -> None:
        self.trainer, self.module, self.data = trainer, module, data
        self.monitor, self.sign, self.refit = monitor, 1 if mode == "max" else -1, refit
        self.heads: list[HeadResult] = []
        self._first: Weights | None = None
        self._metrics()  # also tells the trainer of the module and the data

    def __call__(self, weights: Weights) -> Score:
        """Load weights into the module, fit what has to be fitted to them, and measure them."""
        state = {**self.module.state_dict(), **weights}
        self._first = self._first or weights
        is_average = weights is not self._first  # the first are a run's own, to which everything was fitted already
        self.module.load_state_dict(state)
        if averaged := changed_statistics(self.module, self._first, state):
            renew_statistics(self.trainer, self.module, self.data, averaged)
        self.heads = refit_head(self.trainer, self.module, self.data) if is_average and self.refit else []
        metrics = self._metrics()
        if is_average and self.module.task.settles:
            settled = self.module.task.settle(latest_outputs(self.trainer)["val"])
            self.module.task.load_state_dict(settled, strict=False)
            metrics = self._metrics()
        metric, loss = metrics[self.monitor], metrics["loss/val"]
        return Score((self.sign * metric, -loss), metric, loss)

    def _metrics(self) -> Mapping[str, float]:
        """Metrics of validation by name. Raises UserError if the monitored one is not among them."""
        metrics = self.trainer.validate(self.module, datamodule=self.data, verbose=False)[0]
        if self.monitor not in metrics:
            raise UserError(
                f"the runs were judged by {self.monitor}, which validation does not measure: averages are judged by "
                f"one of {', '.join(metrics)}"
            )
        return metrics


def greedy(members: Iterable[tuple[str, Callable[[], Weights]]], measure: Measure) -> Soup:
    """Add each member, the best first, to a running average, and keep it there only if the score rises.

    Args:
        members: name and a function that reads the weights, the best first.
        measure: see `Measure`.
    """
    (name, read), *others = members
    weights = read()
    score = measure(weights)
    tried, count = [Tried(name, score, True)], 1
    log.info("%s", tried[0])
    for name, read in others:
        with_it = between(weights, read(), 1 / (count + 1))
        other = measure(with_it)
        taken = other > score
        if taken:
            weights, score, count = with_it, other, count + 1
        tried.append(Tried(name, other, taken))
        log.info("%s", tried[-1])
    return Soup(weights, score, tried)


def along_line(start: Weights, soup: Soup, points: int, measure: Measure) -> Soup:
    """The best of the points between `start` and a soup, or the soup if none is better (WiSE-FT).

    What was tried are the points alone.

    Args:
        start: the weights before they were fine-tuned, with a head that was trained on them.
        soup: the fine-tuned ones.
        points: number of points between them, evenly spaced; tried from the soup to the start.
        measure: see `Measure`.
    """
    best, scores = soup, dict[str, Score]()
    for point in reversed(range(1, points + 1)):
        share = point / (points + 1)
        name, weights = f"{share:.0%} of the way from the probe", between(start, soup.weights, share)
        scores[name] = measure(weights)
        log.info("%s", Tried(name, scores[name], taken=False))
        if scores[name] > best.score:
            best = Soup(weights, scores[name], [])
    return best._replace(tried=[Tried(name, score, score is best.score) for name, score in scores.items()])


def members_of(folder: Path) -> tuple[list[RunFolder], int]:
    """The runs whose weights can be averaged, the best first, and how many others there are.

    Those are a single run, or the finished trials of a sweep that have the network of the best one, and its samples for
    validation and test: others may have been trained on these.

    Raises:
        UserError: `folder` is neither a run nor a sweep, or no second trial goes with the best one.
    """
    if is_run(folder):
        return [RunFolder(folder)], 0
    finished = ranked(read_trials(require_sweep(folder)))
    if not finished:
        raise UserError(f"{folder} holds no finished trials: name a sweep that has some, or a run folder")
    networks = {run: network for trial in finished if (network := _network(run := RunFolder(trial.folder))) is not None}
    best = next(iter(networks), RunFolder(finished[0].folder))
    alike = [run for run, network in networks.items() if network == networks[best]]
    held_out = {run: _held_out(run) for run in alike}
    same = [run for run in alike if held_out[run] == held_out[best]]
    if len(same) < 2 <= len(finished):
        what = "are damaged" if len(networks) < 2 else "have another network"
        if len(alike) > 1:
            what = "have other samples for validation, unless data.seed=0 is typed for all; folds always have"
        raise UserError(
            f"no trial in {folder} can be averaged with the best one, {best.path.name}: the others {what}. For the "
            f"best one alone: run={best.path}"
        )
    return same, len(finished) - len(same)


def _network(run: RunFolder) -> object:
    """What is equal for runs of the same network; None, after a warning, if it cannot be read."""
    try:
        own = run.intact(MODULE_FILE)
        shapes = [read_shapes(run.intact(WEIGHTS_FILE)), read_shapes(own) if own.is_file() else {}]
        return shapes, run.class_names(), run.json(INPUT_SPEC_FILE)
    except UserError as error:
        log.warning("%s is left out: %s", run.path, error)
        return None


def _held_out(run: RunFolder) -> object:
    """The samples that a run does not train on, with their labels."""
    return {record for record in run.records() if record.split in ("val", "test")}
