import re
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.reporting.pictures.drawn import predictions
from thaw.reporting.pictures.confusion import confusion_matrix
from thaw.reporting.pictures.precision_recall import precision_recall
from thaw.reporting.pictures.render import png, rgb, svg

NAMES = ['id="a" url(#b)', "고양이", "<b>&", "😀"]


def picture() -> Figure:
    return confusion_matrix(*predictions(80, 4), NAMES)


def test_the_same_figure_gives_the_same_bytes() -> None:
    figure = picture()
    assert png(figure) == png(figure) == png(picture())
    assert svg(picture(), "one") == svg(picture(), "one")
    with Image.open(BytesIO(png(figure))) as image:
        assert image.width == 800
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), rgb(figure))


def test_svgs_of_one_page_share_no_identifier_and_find_their_own() -> None:
    elements = [
        svg(picture(), "one"),
        svg(picture(), "two"),
        svg(precision_recall(*predictions(80, 4), NAMES), "three"),
    ]
    used: set[str] = set()
    for element in elements:
        assert element.startswith("<svg")
        tree = ElementTree.fromstring(element)
        own = [node.attrib["id"] for node in tree.iter() if "id" in node.attrib]
        assert len(own) == len(set(own))
        assert used.isdisjoint(own)
        used |= set(own)
        attributes = [value for node in tree.iter() for value in node.attrib.values()]
        links = re.findall(r"url\(#([^)]*)\)", " ".join(attributes)) + [v[1:] for v in attributes if v.startswith("#o")]
        assert links
        assert set(links) <= set(own)
        (rule,) = (node.text for node in tree.iter() if node.tag.endswith("style"))
        assert rule.startswith(f"#{tree.attrib['id']} *{{")


def test_text_stays_text() -> None:
    tree = ElementTree.fromstring(svg(picture(), "one"))
    written = ["".join(node.itertext()) for node in tree.iter() if node.tag.endswith("}text")]
    assert set(NAMES) <= set(written)


def test_a_prefix_that_cannot_be_an_id_is_refused() -> None:
    for prefix in ("", "1st", "a b", 'a"'):
        with pytest.raises(ValueError, match="prefix is a letter, then letters"):
            svg(picture(), prefix)
