"""What to do next: advice that follows from the numbers of a run, with the section that shows why."""

from collections.abc import Iterator, Mapping
from typing import Any

from thaw.reporting.report import Report
from thaw.reporting.results import Advice, Results
from thaw.reporting.verdict import not_beaten

GAP = 0.05
"""Difference of shares from which a run overfits."""
SHARES = {"accuracy": "more accurate", "mean_average_precision": "better (mean average precision)"}
"""Metrics that are comparable, as words; macro F1 of train is measured before labels have their thresholds."""
TIMES = 1.5
"""The same of errors: so many times as large on val."""


def advice(report: Report, results: Results[Any] | None) -> list[Advice]:
    """Return what to do next, the most urgent first."""
    found = [*_on_training(report)]
    if results is not None:
        if not_beaten(report.baselines, results):
            text = "Beat the simple baseline first: other learning rates, weights or another backbone."
            found.append(Advice("baselines", text))
        found += results.advice()
    return found


def _on_training(report: Report) -> Iterator[Advice]:
    training = report.training
    if report.run.state == "failed":
        yield Advice("top", "Read the message and the last lines of the log above, then start again.")
    if how := _overfits(training.metrics):
        text = f"{how}: it overfits. Try more augmentation or mixing, fewer trained stages, or more data."
        yield Advice("learning", text)
    if training.phases and training.best_epoch == training.phases[-1].last_epoch:
        yield Advice("learning", "The best epoch was the last one: try a longer last phase.")


def _overfits(metrics: Mapping[str, float]) -> str:
    """How much better the run is on train than on val; empty if it is not."""
    for metric, worded in SHARES.items():
        if f"{metric}/train" in metrics and f"{metric}/val" in metrics:
            gap = metrics[f"{metric}/train"] - metrics[f"{metric}/val"]
            return f"It is {100 * gap:.0f} points {worded} on train than on val" if gap > GAP else ""
    train, val = metrics.get("mae/train", 1), metrics.get("mae/val", 0)
    return f"It is {val / train:.1f} times as far off on val as on train" if train and val > TIMES * train else ""
