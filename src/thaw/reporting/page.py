"""The report of a run as one HTML file that needs nothing else: no network, no other file.

C: classes.
"""

from base64 import b64encode
from io import BytesIO
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from thaw.markdown import inline
from thaw.reporting.advice import advice
from thaw.reporting.calibration import calibration
from thaw.reporting.report import Report
from thaw.reporting.results import results_of
from thaw.reporting.tables import epoch_table, metric_rows
from thaw.reporting.verdict import all_baselines, result_sentence, warnings
from thaw.reporting.wording import duration, enumerate_names, percent, percent_range

MAX_MATRIX = 20
"""Most classes whose confusion matrix is shown whole."""
SMALL_PX = 96
"""Images smaller than this are enlarged without blurring."""


class Embedded(NamedTuple):
    """An image inside the page."""

    uri: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    is_small: bool


def render(report: Report) -> str:
    """Return the text of the HTML file. What the report does not have is left out."""
    outputs = report.outputs[report.split] if report.split else None
    results = None if outputs is None else results_of(outputs)
    templates = Environment(
        loader=PackageLoader("thaw.reporting", ""),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": percent,
        "percent_range": percent_range,
        "duration": duration,
        "enumerate_names": enumerate_names,
        "inline": inline,
        "embed": embed,
        "picture": picture_uri,
    }
    values = {
        "report": report,
        "run": report.run,
        "training": report.training,
        "names": report.class_names,
        "outputs": outputs,
        "results": results,
        "sentence": result_sentence(report, results),
        "warnings": warnings(report, results),
        "advice": advice(report, results),
        "baselines": {} if results is None else all_baselines(report.baselines, results),
        "calibrations": {
            split: (calibration(some), calibration(some, report.temperature) if report.temperature else None)
            for split, some in report.outputs.items()
        },
        "positions": {} if outputs is None else {index: row for row, index in enumerate(outputs.indices.tolist())},
        "metric_rows": metric_rows(report.training.metrics, report.counts),
        "epochs": epoch_table(report.training.curves),
        "max_matrix": MAX_MATRIX,
    }
    card = templates.get_template("card.md.jinja").render(values)
    page = templates.get_template("report.html.jinja").render(values, card=card)
    return page.strip().encode(errors="replace").decode() + "\n"  # names of files may be in no encoding


def embed(image: bytes) -> Embedded:
    """A JPEG or PNG file as a `data:` URI with its size."""
    with Image.open(BytesIO(image)) as opened:
        (width, height), kind = opened.size, opened.get_format_mimetype()
    return Embedded(_data_uri(kind or "image/jpeg", image), width, height, max(width, height) < SMALL_PX)


def picture_uri(drawing: str) -> str:
    """A drawing as a `data:` URI. As an image, an SVG runs no script, and shares no ids with another one."""
    return drawing if drawing.startswith("data:") else _data_uri("image/svg+xml", drawing.encode(errors="replace"))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
