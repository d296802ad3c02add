"""The report of a run as one HTML file.

C: classes.
"""

from typing import Any

from thaw.reporting.advice import advice
from thaw.reporting.kinds import results_in
from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.reporting.tables import epoch_table, metric_rows
from thaw.reporting.templates import filled
from thaw.reporting.verdict import all_baselines, result_sentence, warnings

MAX_MATRIX = 20
"""Most classes whose confusion matrix is shown whole."""


def render(report: Report) -> str:
    """Return the text of the HTML file. What the report does not have is left out."""
    results = results_in(report)
    values = {
        "report": report,
        "run": report.run,
        "training": report.training,
        "pictures": report.pictures,
        "names": report.class_names,
        "results": results,
        "numbers": [] if results is None else results.numbers(report.things),
        "longest_bar": _longest_bar(report, results),
        "limits": [] if results is None else results.limits(report.things),
        "sentence": result_sentence(report, results),
        "warnings": warnings(report, results),
        "advice": advice(report, results),
        "baselines": {} if results is None else all_baselines(report.baselines, results),
        "positions": {} if results is None else {n: row for row, n in enumerate(results.outputs.indices.tolist())},
        "metric_rows": metric_rows(report.training.metrics, report.counts),
        "epochs": epoch_table(report.training.curves),
        "max_matrix": MAX_MATRIX,
    }
    return filled("report.html.jinja", **values, card=filled("card.md.jinja", **values))


def _longest_bar(report: Report, results: Results[Any] | None) -> float:
    """The score whose bar is drawn in full length: 1, or the largest error."""
    if results is None or results.perfect:
        return 1
    return max(results.score, *all_baselines(report.baselines, results).values()) or 1
