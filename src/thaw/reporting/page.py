"""The report of a run as one HTML file that needs nothing else: no network, no other file.

C: classes.
"""

from base64 import b64encode
from io import BytesIO
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from thaw.markdown import inline
from thaw.reporting.advice import advice
from thaw.reporting.kinds import results_in
from thaw.reporting.report import Report
from thaw.reporting.results import Results
from thaw.reporting.tables import epoch_table, metric_rows
from thaw.reporting.verdict import all_baselines, result_sentence, warnings
from thaw.reporting.wording import amount, amount_range, decimals, duration, enumerate_names, percent, percent_range

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
    results = results_in(report)
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
        "decimals": decimals,
        "amount": amount,
        "amount_range": amount_range,
        "enumerate_names": enumerate_names,
        "inline": inline,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "embed": embed,
        "picture": picture_uri,
    }
    values = {
        "report": report,
        "run": report.run,
        "training": report.training,
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


def _longest_bar(report: Report, results: Results[Any] | None) -> float:
    """The score whose bar is drawn in full length: 1, or the largest error."""
    if results is None or results.perfect:
        return 1
    return max(results.score, *all_baselines(report.baselines, results).values()) or 1
