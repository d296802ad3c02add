from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.reporting import made_up
from thaw.reporting.advice import advice
from thaw.reporting.kinds import results_in
from thaw.reporting.report import Report
from thaw.reporting.verdict import result_sentence, warnings
from thaw.reporting.wording import duration, enumerate_names, percent, percent_range
from thaw.tasks.outputs import ClassOutputs


def answers(targets: list[int], predictions: list[int], confidence: float = 0.99) -> ClassOutputs:
    """Outputs with these predictions, all of the same confidence."""
    num_classes = 3
    probabilities = np.full((len(targets), num_classes), (1 - confidence) / (num_classes - 1))
    probabilities[np.arange(len(targets)), predictions] = confidence
    return ClassOutputs(np.arange(len(targets)), np.array(targets), np.log(probabilities))


RIGHT = [0] * 40 + [1] * 40 + [2] * 20
ANSWERS = [0] * 37 + [1] * 3 + [1] * 40 + [2] * 20
"""97 of 100 are right; class 0 is taken for class 1 three times."""


def pets(**changes: Any) -> Report:
    test = answers(RIGHT, ANSWERS)
    return made_up.report(class_names=["cat", "dog", "cow"], **{"outputs": {"test": test}, "baselines": {}, **changes})


def sentence(report: Report) -> str:
    return result_sentence(report, results_in(report))


def test_the_sentence_says_what_is_beaten_what_is_level_and_what_is_better() -> None:
    assert sentence(pets(baselines={"k-NN": 0.8, "class means": 0.5, "TF-IDF": 0.96, "SVM": 0.97})) == (
        "97.0% of 100 test images are classified right (95% interval 91.5\N{EN DASH}99.0%); "
        "it beats k-NN (80.0%) and class means (50.0%); it is not clearly better than TF-IDF (96.0%); "
        "it does not beat SVM (97.0%); most often cat is taken for dog (3 times)."
    )


def test_a_network_that_names_the_most_frequent_class_is_warned_of() -> None:
    report = pets(outputs={"test": answers([0] * 9 + [1], [0] * 10)})
    (found, missing) = warnings(report, results_in(report))
    assert found == ("No better than a simple baseline: always the most frequent class gets 90.0%, the run 90.0%.")
    assert missing == "No test images of cow: how well they do is unknown."
    assert warnings(pets(), results_in(pets())) == []


def sections(report: Report) -> list[str]:
    return [piece.section for piece in advice(report, results_in(report))]


def test_advice_follows_from_the_numbers() -> None:
    calm = pets(outputs={"test": answers(RIGHT * 9, ANSWERS * 9, 0.8)}, calibration={})
    assert sections(calm) == []
    training = calm.training
    assert sections(replace(calm, baselines={"k-NN": 0.97})) == ["baselines"]
    assert sections(replace(calm, calibration={"temperature": 0.5})) == ["trust"]
    assert sections(replace(calm, outputs={"test": answers(RIGHT * 9, ANSWERS * 9)})) == ["mistakes"]
    assert sections(replace(calm, outputs={"test": answers(RIGHT, ANSWERS, 0.8)})) == ["classes"]  # a wide interval
    assert sections(replace(calm, training=replace(training, best_epoch=11))) == ["learning"]
    overfit = replace(training, metrics={"accuracy/train": 0.99, "accuracy/val": 0.9})
    (piece,) = advice(replace(calm, training=overfit), None)
    assert "9 points more accurate on train than on val" in piece.text
    weak = answers([0] * 400 + [1] * 400 + [2] * 100, [0] * 400 + [1] * 400 + [1] * 50 + [2] * 50, 0.8)
    weakly = replace(calm, outputs={"test": weak})
    (piece,) = advice(weakly, results_in(weakly))
    assert piece.text.startswith("cow is the weakest class")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0%"), (0.0004, "<0.1%"), (0.5, "50.0%"), (0.9994, "99.9%"), (0.9996, ">99.9%"), (1, "100.0%")],
)
def test_a_percentage_never_rounds_to_all_or_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_durations_and_lists() -> None:
    assert percent_range((0.5, 0.75)) == "50.0\N{EN DASH}75.0%"
    assert [duration(seconds) for seconds in (5, 59.4, 59.7, 60, 3599.7, 7384, 7199.9)] == [
        "5.0 s", "59 s", "1 min 0 s", "1 min 0 s", "1 h 0 min", "2 h 3 min", "2 h 0 min",
    ]  # fmt: skip
    assert enumerate_names(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert enumerate_names(["a", "b"], most=2) == "a, b"
