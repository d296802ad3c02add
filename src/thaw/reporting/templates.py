"""Templates of pages, each one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from io import BytesIO
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from thaw.markdown import inline
from thaw.reporting.wording import amount, amount_range, decimals, duration, enumerate_names, percent, percent_range

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


def filled(template: str, **values: Any) -> str:
    """Return the text of a template of this folder with its values. Of `*.html.jinja` all values are escaped."""
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
    text = templates.get_template(template).render(values)
    return text.strip().encode(errors="replace").decode() + "\n"  # names of files may be in no encoding


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
