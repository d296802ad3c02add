"""The result of a run in one sentence, and what casts doubt on it."""

from collections.abc import Mapping

from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.reporting.wording import enumerate_names, percent, percent_range

MOST_FREQUENT = "always the most frequent class"


def all_baselines(baselines: Mapping[str, float], results: Results) -> dict[str, float]:
    """Accuracy of the given baselines and of always naming the most frequent class, by name."""
    return {MOST_FREQUENT: results.most_frequent_share, **baselines}


def not_beaten(baselines: Mapping[str, float], results: Results) -> dict[str, float]:
    """Baselines that are as accurate as the run, or more; none if the run makes no mistake."""
    as_good = {name: share for name, share in all_baselines(baselines, results).items() if share >= results.accuracy}
    return as_good if results.accuracy < 1 else {}


def also_perfect(baselines: Mapping[str, float], results: Results) -> list[str]:
    """Baselines that make no mistake where the run makes none."""
    return [name for name, share in baselines.items() if share >= results.accuracy == 1]


def result_sentence(report: Report, results: Results | None) -> str:
    """The result in one sentence: accuracy with its interval, baselines, the most confused classes."""
    if results is None:
        how = "was stopped" if report.run.state == "stopped" else report.run.state
        return f"The run {how} before anything was measured."
    parts = [
        f"{percent(results.accuracy)} of {results.total:,} {report.split} {report.things} are classified right "
        f"(95% interval {percent_range(results.interval)})"
    ]
    low, given = results.interval[0], report.baselines
    groups = {
        "it beats": {name: share for name, share in given.items() if share < low},
        "it is not clearly better than": {
            name: share for name, share in given.items() if low <= share < results.accuracy
        },
        "it does not beat": not_beaten(given, results),
    }
    for verb, group in groups.items():
        if group:
            parts.append(f"{verb} " + " and ".join(f"{name} ({percent(share)})" for name, share in group.items()))
    if results.mistakes.pairs:
        worst = results.mistakes.pairs[0]
        true, predicted = report.class_names[worst.true], report.class_names[worst.predicted]
        parts.append(f"most often {true} is taken for {predicted} ({worst.times:,} times)")
    return "; ".join(parts) + "."


def warnings(report: Report, results: Results | None) -> list[str]:
    """What casts doubt on the result, the gravest first."""
    found = []
    if results is not None:
        if better := not_beaten(report.baselines, results):
            gets = " and ".join(f"{name} gets {percent(share)}" for name, share in better.items())
            found.append(f"No better than a simple baseline: {gets}, the run {percent(results.accuracy)}.")
        if simple := also_perfect(report.baselines, results):
            found.append(
                f"Too easy to tell methods apart: {enumerate_names(simple)} also makes no mistake on {report.split}."
            )
        if report.split == "val":
            found.append("There is no test split. Val has chosen the best epoch, so scores on it flatter.")
        if missing := [report.class_names[row.number] for row in results.scores if not row.support]:
            found.append(
                f"No {report.split} {report.things} of {enumerate_names(missing)}: how well they do is unknown."
            )
    return [*found, *report.data_warnings]
