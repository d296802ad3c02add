"""The result of a run in one sentence, and what casts doubt on it."""

from collections.abc import Mapping
from typing import Any

from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.reporting.wording import enumerate_names


def all_baselines(baselines: Mapping[str, float], results: Results[Any]) -> dict[str, float]:
    """Scores of the given baselines and of the best constant answer, by name."""
    return {**dict([results.constant]), **baselines}


def not_beaten(baselines: Mapping[str, float], results: Results[Any]) -> dict[str, float]:
    """Baselines that are as good as the run, or better; none if the run makes no mistake."""
    every = all_baselines(baselines, results).items()
    as_good = {name: score for name, score in every if results.is_as_good(score, results.score)}
    return as_good if results.score != results.perfect else {}


def also_perfect(baselines: Mapping[str, float], results: Results[Any]) -> list[str]:
    """Baselines that make no mistake where the run makes none."""
    return [name for name, score in baselines.items() if score == results.score == results.perfect]


def result_sentence(report: Report, results: Results[Any] | None) -> str:
    """The result in one sentence: the score with its interval, baselines, what is most often wrong."""
    if results is None:
        how = "was stopped" if report.run.state == "stopped" else report.run.state
        return f"The run {how} before anything was measured."
    parts = [results.verdict(f"{report.split} {report.things}")]
    bounds = results.interval or (results.score, results.score)
    least = bounds[0] if results.perfect else bounds[1]
    given = report.baselines.items()
    worse = {name: score for name, score in given if not results.is_as_good(score, results.score)}
    level = {name: score for name, score in worse.items() if results.is_as_good(score, least)}
    groups = {
        "it beats": {name: score for name, score in worse.items() if name not in level},
        "it is not clearly better than": level,
        "it does not beat": not_beaten(report.baselines, results),
    }
    for verb, group in groups.items():
        if group:
            named = (f"{name} ({results.written(score)})" for name, score in group.items())
            parts.append(f"{verb} " + " and ".join(named))
    return "; ".join(filter(None, [*parts, results.remark()])) + "."


def warnings(report: Report, results: Results[Any] | None) -> list[str]:
    """What casts doubt on the result, the gravest first."""
    found = []
    if results is not None:
        if better := not_beaten(report.baselines, results):
            gets = " and ".join(f"{name} gets {results.written(score)}" for name, score in better.items())
            found.append(f"No better than a simple baseline: {gets}, the run {results.written(results.score)}.")
        if simple := also_perfect(report.baselines, results):
            found.append(
                f"Too easy to tell methods apart: {enumerate_names(simple)} also makes no mistake on {report.split}."
            )
        if report.split == "val":
            found.append(f"There is no test split. {results.val_decided}, so scores on it flatter.")
        if missing := results.missing():
            found.append(
                f"No {report.split} {report.things} of {enumerate_names(missing)}: how well they do is unknown."
            )
    return [*found, *report.data_warnings]
