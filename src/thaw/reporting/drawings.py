"""The charts of a report, as SVG."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from thaw.reporting.pictures.learning_curves import learning_curves
from thaw.reporting.pictures.phases import PhaseSpan
from thaw.reporting.pictures.rates import stage_rates
from thaw.reporting.pictures.render import svg
from thaw.reporting.report import Picture, Training


def training_charts(training: Training, rates: Mapping[str, Sequence[tuple[int, float]]]) -> list[Picture]:
    """Learning curves of the loss and of the monitored metric, and the rate of each stage by step."""
    charts = []
    phases = [PhaseSpan(row.first_epoch, row.last_epoch, row.trains) for row in training.phases]
    names = dict.fromkeys(("loss", training.monitor.partition("/")[0]))
    if curves := {name: training.curves[name] for name in names if name in training.curves}:
        figure = learning_curves(curves, phases, training.best_epoch)
        charts.append(picture("learning", "Learning curves of training and validation, by phase", figure, "curves"))
    if any(len(points) > 1 for points in rates.values()):
        charts.append(picture("learning", "Learning rate of each stage", stage_rates(rates), "rates"))
    return charts


def picture(section: str, caption: str, figure: Figure, prefix: str) -> Picture:
    """A figure for a section; `prefix` starts the ids of its SVG: another one for each picture of a page."""
    return Picture(section, caption, svg(figure, prefix))
