"""What to do next: advice that follows from the numbers of a run, with the section that shows why."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from thaw.reporting.calibration import calibration
from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.reporting.verdict import not_beaten

SURE = 0.9
"""Confidence from which a mistake may well be a wrong label."""
GAP, WEAK, WIDE, ECE_GAIN = 0.05, 0.1, 0.06, 0.01
"""Differences of shares from which there is something to say."""


class Advice(NamedTuple):
    """One piece of advice."""

    section: str
    """The section that shows why; none is called "top"."""
    text: str


def advice(report: Report, results: Results | None) -> list[Advice]:
    """Return what to do next, the most urgent first."""
    return [*_on_training(report), *(() if results is None else _on_results(report, results))]


def _on_training(report: Report) -> Iterator[Advice]:
    training, metrics = report.training, report.training.metrics
    if report.run.state == "failed":
        yield Advice("top", "Read the message and the last lines of the log above, then start again.")
    gap = metrics.get("accuracy/train", 0) - metrics.get("accuracy/val", 1)
    if gap > GAP:
        text = f"It is {100 * gap:.0f} points more accurate on train than on val: it overfits. Try more augmentation "
        yield Advice("learning", text + "or mixing, fewer trained stages, or more data.")
    if training.phases and training.best_epoch == training.phases[-1].last_epoch:
        yield Advice("learning", "The best epoch was the last one: try a longer last phase.")


def _on_results(report: Report, results: Results) -> Iterator[Advice]:
    outputs = report.outputs[str(report.split)]
    names = report.class_names
    if not_beaten(report.baselines, results):
        yield Advice("baselines", "Beat the simple baseline first: other learning rates, weights or another backbone.")
    wrong = outputs.predictions != outputs.targets
    if sure := int(np.count_nonzero(outputs.confidences[wrong] >= SURE)):
        text = f"Check the labels of the mistakes with a confidence of {100 * SURE:.0f}% or more: {sure:,}."
        yield Advice("mistakes", text)
    weakest = results.scores[0]
    if weakest.support and weakest.f1 < results.macro.f1 - WEAK:
        text = f"{names[weakest.number]} is the weakest class (F1 {weakest.f1:.2f}): collect more samples of it."
        yield Advice("classes", text)
    if report.temperature is not None:
        plain, scaled = calibration(outputs), calibration(outputs, report.temperature)
        if plain.ece - scaled.ece > ECE_GAIN:
            text = f"Divide the logits by {report.temperature:.2f} where probabilities matter: it calibrates them."
            yield Advice("trust", text)
    width = results.interval[1] - results.interval[0]
    if width > WIDE:
        text = f"The interval is {100 * width:.0f} points wide: smaller differences between runs mean little."
        yield Advice("classes", text)
