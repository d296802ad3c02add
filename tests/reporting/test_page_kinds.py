"""Pages on samples with any number of labels, and with numbers."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.reporting import made_up
from tests.reporting.test_page import EVIL, checked
from thaw.reporting.advice import advice
from thaw.reporting.kinds import results_in
from thaw.reporting.page import render
from thaw.reporting.report import Look, Report, SampleView
from thaw.reporting.verdict import result_sentence, warnings
from thaw.tasks.outputs import MultiOutputs, Outputs

ALWAYS = {"learning", "mistakes", "looks", "baselines", "cost", "reproduce"}


def with_labels(**changes: Any) -> Report:
    outputs = {"test": made_up.label_outputs(), "val": made_up.label_outputs(seed=1)}
    return of_kind("macro_f1/val", **{"outputs": outputs, "calibration": {"thresholds": [0.3, 0.5, 0.7]}, **changes})


def with_numbers(columns: int = 1, **changes: Any) -> Report:
    outputs = {"test": made_up.number_outputs(columns=columns)}
    return of_kind("mae/val", **{"outputs": outputs, "calibration": {}, **changes})


def of_kind(monitor: str, outputs: dict[str, Outputs], **changes: Any) -> Report:
    """A finished run, with pictures and samples."""
    names = ["cat", "dog", "cow"][: outputs["test"].logits.shape[1]]
    training = made_up.Training(monitor, "max", 5, {monitor: 0.5}, {"loss": {"val": [(0, 1.0)]}})
    made = made_up.report(
        **{"outputs": outputs, "class_names": names, "training": training, "baselines": {"k-NN": 0.3}, **changes}
    )
    results = results_in(made)
    assert results is not None
    looks = [Look(int(results.outputs.indices[row]), made_up.image()) for row, _ in results.looked_at()]
    return replace(made, pictures=results.charts(), looks=looks)


def test_a_page_on_labels_has_a_table_of_each_and_mistakes_of_both_kinds() -> None:
    report = with_labels()
    results = results_in(report)
    assert results is not None
    html = render(report)
    page = checked(html)
    assert page.sections() == {*ALWAYS, "classes"}
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 8}
    for score in results.scores:
        columns = (score.f1, score.precision, score.recall, score.average_precision, score.auroc)
        expected = [*(f"{value:.4f}" for value in columns), f"{score.threshold:.3f}", str(score.support)]
        assert rows[report.class_names[score.number]] == expected
    assert "Which labels are hard?" in html
    assert "Confusion matrix" not in html
    for kind, is_set in (("set", True), ("missed", False)):
        shown = [name for name in page.ids if name.startswith(f"{kind}-")]
        assert shown == [f"{kind}-{mistake.row}-{mistake.number}" for mistake in results.mistakes(is_set)[:12]]
        assert shown
    assert result_sentence(report, results)[:-1] in html
    assert "where setting every label gives" in html
    assert "Precision and recall at every threshold" in html
    assert "What speaks for the most probable label is highlighted" in html
    card = html[html.index("Text for a model card") :]
    assert "It tells which of 3 labels images have: cat, dog, cow." in card
    assert "cat 0.300, dog 0.500, cow 0.700" in card


@pytest.mark.parametrize("columns", [1, 3])
def test_a_page_on_numbers_has_a_table_of_each_quantity_and_the_largest_errors(columns: int) -> None:
    report = with_numbers(columns)
    results = results_in(report)
    assert results is not None
    html = render(report)
    page = checked(html)
    assert page.sections() == {*ALWAYS, "errors"}
    rows = [row for row in page.rows if len(row) == 9][1:]
    assert [row[0] for row in rows] == report.class_names
    assert [row[5] for row in rows] == [f"{score.r2:.4f}" for score in results.scores]
    assert "How far off is it?" in html
    assert "Largest errors" in html
    assert [name for name in page.ids if name.startswith("sample-")] == [
        f"sample-{row}" for row in results.worst()[:24]
    ]
    assert results.verdict("test images") in html
    assert html.count("<img") >= 24 + 2
    assert 'alt="Predicted by true numbers"' in html
    assert 'alt="Errors by predicted numbers"' in html
    card = html[html.index("Text for a model card") :]
    assert "It predicts numbers of images: cat (" in card
    assert "mean absolute error: always the median" in card


@pytest.mark.parametrize("report", [with_labels(), with_numbers(), with_numbers(3)], ids=["labels", "one", "three"])
def test_texts_are_shown_and_without_samples_there_are_no_cards(report: Report) -> None:
    texts = {index: SampleView(f"row {index}", texts=(f"{EVIL} {index}",)) for index in report.samples}
    looks = [Look(look.index, tokens=[("good", 0.9), ("bad", -0.5)]) for look in report.looks]
    page = render(replace(report, things="texts", samples=texts, looks=looks))
    checked(page)
    assert "&lt;script&gt;alert(1)" in page
    assert "words speak for" in page
    bare = render(replace(report, samples={}, looks=[], baselines={}))
    sections = checked(bare).sections()
    assert "mistakes" not in sections
    assert "looks" not in sections
    evil = render(replace(report, class_names=[EVIL, f"{EVIL}2", f"{EVIL}3"][: len(report.class_names)]))
    checked(evil)
    assert "<script>alert" not in evil


def test_a_label_that_no_sample_has_is_told() -> None:
    outputs = made_up.label_outputs()
    targets = outputs.targets * [1, 0, 1]
    report = with_labels(outputs={"test": MultiOutputs(outputs.indices, targets, outputs.logits)})
    assert "No test images of dog: how well they do is unknown." in warnings(report, results_in(report))
    rows = [row for row in checked(render(report)).rows if row[0] == "dog"]
    assert ["dog", *"–––––", "0.500", "none"] in rows  # noqa: RUF001


def test_errors_are_better_when_they_are_smaller() -> None:
    report = with_numbers(baselines={"far": 9.0, "near": 0.001})
    results = results_in(report)
    sentence = result_sentence(report, results)
    assert "it beats far (9)" in sentence
    assert "it does not beat near (0.001)" in sentence
    assert "near gets 0.001" in warnings(report, results)[0]
    assert advice(report, results)[0].section == "baselines"
    rows = [row for row in checked(render(report)).rows if len(row) == 2 and row[0] in ("this run", "far", "near")]
    assert [row[0] for row in rows] == ["this run", "near", "far"]
    level = replace(report, baselines={"level": results.score * 1.001})
    assert "it is not clearly better than level" in result_sentence(level, results_in(level))


def test_overfitting_is_told_from_errors_and_from_average_precision() -> None:
    def learning(report: Report, metrics: dict[str, float]) -> list[str]:
        overfit = replace(report, training=replace(report.training, metrics=metrics))
        return [piece.text for piece in advice(overfit, None) if piece.section == "learning"]

    (text,) = learning(with_numbers(), {"mae/train": 1.0, "mae/val": 2.0})
    assert text.startswith("It is 2.0 times as far off on val as on train: it overfits.")
    assert learning(with_numbers(), {"mae/train": 1.0, "mae/val": 1.2}) == []
    (text,) = learning(with_labels(), {"mean_average_precision/train": 0.9, "mean_average_precision/val": 0.8})
    assert text.startswith("It is 10 points better (mean average precision)")


def test_without_a_test_split_thresholds_flatter_too() -> None:
    report = replace(with_labels(), outputs={"val": made_up.label_outputs(seed=1)})
    assert any(
        "Val has chosen the best epoch and the thresholds" in text for text in warnings(report, results_in(report))
    )


def test_large_and_tiny_numbers_are_readable() -> None:
    outputs = made_up.number_outputs()
    scale = 123456.0
    large = replace(outputs, targets=outputs.targets * scale, logits=outputs.logits * np.float32(scale))
    html = render(with_numbers(outputs={"test": large}))
    assert re.search(r"is off by \d\d,\d{3} \(95% interval \d\d,\d{3} to \d\d,\d{3}\)", html)
    tiny = replace(outputs, targets=outputs.targets / scale, logits=outputs.logits / np.float32(scale))
    assert re.search(r"is off by \d(\.\d+)?e-06 ", render(with_numbers(outputs={"test": tiny})))
