"""Which results belong to which kind of outputs. No other code of this room tests of which kind outputs are."""

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.reporting.class_results import ClassResults
from thaw.reporting.label_results import LabelResults
from thaw.reporting.number_results import NumberResults
from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.tasks.outputs import ClassOutputs, MultiOutputs, NumberOutputs, Outputs

RESULTS: Mapping[type[Outputs], type[Results[Any]]] = {
    ClassOutputs: ClassResults,
    MultiOutputs: LabelResults,
    NumberOutputs: NumberResults,
}


def results_of(outputs: Outputs, names: Sequence[str], calibration: Mapping[str, Any] = {}) -> Results[Any]:
    """Evaluate the outputs of a split, see `Results`."""
    return RESULTS[type(outputs)](outputs, names, calibration)


def results_in(report: Report) -> Results[Any] | None:
    """Evaluate what a report is about; None if nothing was measured."""
    if report.split is None:
        return None
    return results_of(report.outputs[report.split], report.class_names, report.calibration)
