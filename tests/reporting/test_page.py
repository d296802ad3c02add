import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import classification_report

from tests.reporting import made_up
from thaw.reporting.mistakes import confident_mistakes
from thaw.reporting.page import render
from thaw.reporting.report import Look, Picture, SampleView
from thaw.tasks.outputs import ClassOutputs
from thaw.training.head_choice import HeadResult

EVIL = "<script>alert(1)</script>\"' onerror=alert(1) {{ 7 * 7 }}"
SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>drawn</title></svg>'
SECTIONS = ("learning", "classes", "confusion", "mistakes", "trust", "looks", "baselines", "cost")
"""Those that show pictures."""
DASH = "\N{EN DASH}"
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Elements, texts and links of a page. Raises AssertionError if its tags are not closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.strip()

    def sections(self) -> set[str]:
        return {attributes["id"] for tag, attributes in self.tags if tag == "section"}


def checked(html: str) -> Page:
    """The page, after what holds for every one: well formed, no requests, no dead links, no image without a text."""
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "svg", "video", "audio"}
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action", "ping")]
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#top").removeprefix("#") in page.ids
        assert "url(" not in attributes.get("style", "")
        assert tag != "img" or attributes["alt"]
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    assert not re.search(r"url\(|@import|@font-face", style)
    assert html.count("<script") == 1
    assert not re.search(r"https?://", html)
    levels = [int(heading[1]) for heading in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(html.encode()) < 3e6
    return page


def test_the_page_has_the_numbers_of_scikit_learn() -> None:
    report = made_up.report(4, 203, 0.8)
    outputs = report.outputs["test"]
    expected = classification_report(outputs.targets, outputs.predictions, output_dict=True)
    html = render(report)
    rows = {row[0]: row[1:] for row in checked(html).rows if row[1:] and re.fullmatch(r"[01]\.\d{4}", row[1])}
    for number, name in enumerate(report.class_names):
        scores = expected[str(number)]
        keys = ("f1-score", "precision", "recall")
        assert rows[name] == [*(f"{scores[key]:.4f}" for key in keys), f"{scores['support']:.0f}"]
    assert f"{100 * expected['accuracy']:.1f}% of 203 test images are classified right" in html


def test_the_candidates_for_the_head_are_shown_and_the_one_that_was_kept() -> None:
    heads = [HeadResult("as trained", 0.52, 0.83, False), HeadResult("LDA", 0.41, 0.865, True)]
    html = render(made_up.report(heads=heads))
    rows = checked(html).rows
    assert [row for row in rows if row[0] in ("as trained", "LDA (kept)")] == [
        ["as trained", "0.5200", "83.0%"],
        ["LDA (kept)", "0.4100", "86.5%"],
    ]
    assert "with the head below" in html
    without_choice = render(made_up.report(heads=[]))
    assert "head was kept" not in without_choice
    assert "with the head below" not in without_choice


def test_the_confusion_matrix_leads_to_its_examples() -> None:
    report = made_up.report(4, 100, 0.8)
    outputs = report.outputs["test"]
    page = checked(render(report))
    matrix = page.rows[next(i for i, row in enumerate(page.rows) if row[0].startswith("true ↓")) + 1 :][:4]
    counts = [[int(cell.replace("·", "0")) for cell in row[1:]] for row in matrix]
    expected = [
        [int(np.sum((outputs.targets == true) & (outputs.predictions == predicted))) for predicted in range(4)]
        for true in range(4)
    ]
    assert counts == expected
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a" and "title" in attributes}
    wrong = [(true, predicted) for true in range(4) for predicted in range(4) if true != predicted]
    twice = {f"#pair-{true}-{predicted}" for true, predicted in wrong if expected[true][predicted] > 1}
    mistakes = confident_mistakes(outputs)
    once = {f"#sample-{row}" for row in mistakes if expected[outputs.targets[row]][outputs.predictions[row]] == 1}
    assert len(twice) >= 3
    assert len(once) >= 2
    assert len(mistakes) <= 24  # each has a card
    assert links == twice | once
    unread = replace(report, samples={})
    assert not any("#sample" in attributes.get("href", "") for _, attributes in checked(render(unread)).tags)


def test_names_texts_and_messages_are_shown_and_never_run() -> None:
    report = made_up.report(3, 60, 0.5)
    wanted = list(report.samples)
    report = replace(
        report,
        run=replace(report.run, name=EVIL, run_id=EVIL, state="failed", message=EVIL, log_lines=[EVIL], device=EVIL),
        network=EVIL,
        class_names=[EVIL, "plain", f"{EVIL}\udcff"],
        samples={
            index: SampleView(EVIL, *(((), made_up.image()) if number % 2 else ((EVIL * 9,),)))
            for number, index in enumerate(wanted)
        },
        looks=[Look(wanted[0], tokens=[(EVIL, 0.5), (EVIL, -2.0)]), Look(wanted[1], made_up.image())],
        baselines={EVIL: 0.99},
        data_report=EVIL,
        data_warnings=[EVIL],
        pictures=[Picture(section, EVIL, SVG) for section in SECTIONS],
        training=replace(
            report.training, monitor=EVIL, metrics={f"{EVIL}/val": 1.0}, curves={EVIL: {EVIL: [(0, 1.0)]}}
        ),
        reproduction=replace(
            report.reproduction,
            command=EVIL,
            config_yaml=EVIL,
            versions={EVIL: EVIL},
            git_commit=EVIL,
        ),
    )
    html = render(report)
    page = checked(html)
    assert page.sections() == {*SECTIONS, "reproduce"}
    assert "<script>alert" not in html
    card = re.search("Text for a model card.*?</pre>", html, re.DOTALL)
    assert card is not None
    assert "&amp;lt;script&amp;gt;" in card[0]
    assert "&lt;script" not in card[0], "in the text itself"
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 100
    assert "{{ 7 * 7 }}" in html  # the text of a name is not a template
    assert sum(attributes.get("title", "").startswith(EVIL) for _, attributes in page.tags) > 4  # whole, in its quotes


@pytest.mark.parametrize(
    ("num_classes", "total", "accuracy"), [(2, 30, 0.9), (2, 30, 1.0), (2, 30, 0.0), (20, 400, 0.9), (21, 400, 0.9)]
)
def test_any_size_has_a_page(num_classes: int, total: int, accuracy: float) -> None:
    html = render(made_up.report(num_classes, total, accuracy, calibration={}, pictures=[], counts={}))
    page = checked(html)
    assert ("Confusion matrix" in html) == (num_classes <= 20)
    assert ("mistakes" in page.sections()) == (accuracy < 1)
    assert "with T" not in html


def test_200_classes_fit_into_3_mb_and_classes_without_samples_are_told() -> None:
    report = made_up.report(200, 6000, 0.6, class_names=[f"a long name of class {number}" for number in range(200)])
    outputs = report.outputs["test"]
    kept = ~np.isin(outputs.targets, [3, 77])
    test = ClassOutputs(outputs.indices[kept], outputs.targets[kept], outputs.logits[kept])
    photos = made_up.report(200, outputs={"test": test}).samples
    assert len(photos) > 100
    photos = {index: SampleView("p.jpg", image=made_up.image(90, index)) for index in photos}
    assert sum(len(view.image or b"") for view in photos.values()) > 2e6  # noise: a photo is about a third of that
    photos = {index: SampleView("p.jpg", image=made_up.image(60, index)) for index in photos}
    html = render(replace(report, outputs={"test": test}, samples=photos))
    page = checked(html)
    assert "No test images of a long name of class 3, a long name of class 77" in html
    rows = [row for row in page.rows if row[0].startswith("a long name") and len(row) == 5]
    assert [row for row in rows if row[-1] == "none"] == [
        [f"a long name of class {number}", DASH, DASH, DASH, "none"] for number in (3, 77)
    ]
    assert len({row[0] for row in rows}) == 200
    assert sum(name.startswith("pair-") for name in page.ids) == 30


def test_a_long_text_is_shortened_and_folded() -> None:
    report = made_up.report(2, 60, 0.7, things="texts")
    text = "".join(f"{number:05d} " for number in range(9_990 // 6)) + "the end."
    outputs = report.outputs["test"]
    long = int(outputs.indices[confident_mistakes(outputs)[0]])
    samples = {index: SampleView(f"sample {index}", texts=("short",)) for index in report.samples}
    html = render(replace(report, samples={**samples, long: SampleView("sample", texts=(text,))}))
    checked(html)
    assert f"the whole text, {len(text):,} characters" in html
    assert html.count("the end.") == 1
    longer = render(replace(report, samples={**samples, long: SampleView("sample", texts=(text + " And more.",))}))
    assert "10,008 characters (the first 10,000)" in longer
    assert "And more." not in longer
    assert html.count("00040 ") == 2  # in the excerpt and in the whole; examples of pairs are shorter
    assert html.count("00010 ") == 3
    assert (
        html.index("<details><summary>the whole")
        < html.index("the end.")
        < html.index("</details>", html.index("the end."))
    )


def test_a_tiny_image_is_enlarged_without_blurring_and_a_photo_is_not() -> None:
    small, large = (checked(render(made_up.report(size_px=size_px))) for size_px in (5, 200))
    images = [attributes for tag, attributes in small.tags if tag == "img"]
    assert images
    assert all(attributes["class"] == "small" and attributes["width"] == "5" for attributes in images)
    assert not any(tag == "img" and "class" in attributes for tag, attributes in large.tags)
    assert re.search(r"img\.small \{ image-rendering: pixelated", render(made_up.report()))


def test_without_a_test_split_the_report_is_about_val_and_says_so() -> None:
    whole = made_up.report()
    html = render(replace(whole, outputs={"val": whole.outputs["val"]}))
    assert "90 val images are classified right" in html
    assert "There is no test split" in html
    assert "There is no test split" not in render(whole)
    assert "mistakes" in checked(html).sections() or not whole.samples


def test_a_failed_run_shows_its_message_and_nothing_that_it_does_not_have() -> None:
    whole = made_up.report()
    failed = replace(
        whole,
        run=replace(whole.run, state="failed", message="the loss is nan", log_lines=["epoch 3", "Traceback"]),
        outputs={},
        samples={},
        calibration={},
        training=replace(whole.training, best_epoch=None, metrics={}),
    )
    html = render(failed)
    assert checked(html).sections() == {"learning", "cost", "reproduce"}
    assert "The run failed before anything was measured." in html
    assert html.index("the loss is nan") < html.index("Traceback") < html.index("Did it learn?")
    bare = replace(failed, training=replace(failed.training, phases=[], curves={}), data_report="")
    bare = replace(bare, run=replace(bare.run, seconds=None, device=""))
    assert checked(render(bare)).sections() == {"reproduce"}


def test_each_picture_is_in_its_section_and_isolated() -> None:
    pictures = [Picture(section, f"caption of {section}", SVG) for section in SECTIONS]
    html = render(made_up.report(pictures=[*pictures, Picture("trust", "a bitmap", "data:image/png;base64,AAAA")]))
    checked(html)
    for section, part in zip(SECTIONS, html.split("<section id=")[1:], strict=False):
        assert part.startswith(f'"{section}"')
        assert f'alt="caption of {section}"' in part
    assert 'src="data:image/png;base64,AAAA"' in html


def test_the_same_values_give_the_same_page() -> None:
    first, second = (zlib.crc32(render(made_up.report()).encode()) for _ in range(2))
    assert first == second
