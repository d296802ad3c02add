"""Results of samples with any number of labels."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from tests.reporting import made_up
from thaw.reporting.kinds import results_of
from thaw.reporting.label_results import LabelResults, macro_f1
from thaw.tasks.outputs import MultiOutputs

NAMES = ["cat", "dog", "cow"]
THRESHOLDS = [0.3, 0.5, 0.7]


def labels(outputs: MultiOutputs, names: list[str] = NAMES, thresholds: list[float] | None = None) -> LabelResults:
    results = results_of(outputs, names, {} if thresholds is None else {"thresholds": thresholds})
    assert isinstance(results, LabelResults)
    return results


def answers(targets: list[list[int]], probabilities: list[list[float]]) -> MultiOutputs:
    chances = np.array(probabilities)
    return MultiOutputs(np.arange(len(targets)), np.array(targets), np.log(chances / (1 - chances)))


def test_scores_are_those_of_scikit_learn_at_the_thresholds_of_validation() -> None:
    outputs = made_up.label_outputs(300)
    results = labels(outputs, thresholds=THRESHOLDS)
    said = outputs.probabilities >= THRESHOLDS
    for row in results.scores:
        true, own = outputs.targets[:, row.number], outputs.probabilities[:, row.number]
        chosen = said[:, row.number]
        assert row.f1 == pytest.approx(f1_score(true, chosen))
        assert row.precision == pytest.approx(precision_score(true, chosen))
        assert row.recall == pytest.approx(recall_score(true, chosen))
        assert row.average_precision == pytest.approx(average_precision_score(true, own))
        assert row.auroc == pytest.approx(roc_auc_score(true, own))
        assert (row.threshold, row.support) == (THRESHOLDS[row.number], true.sum())
    assert [row.f1 for row in results.scores] == sorted(row.f1 for row in results.scores)
    assert results.score == pytest.approx(f1_score(outputs.targets, said, average="macro"))
    assert results.mean("average_precision") == pytest.approx(
        average_precision_score(outputs.targets, outputs.probabilities, average="macro")
    )
    assert results.interval is not None
    assert results.interval[0] < results.score < results.interval[1]
    plain = labels(outputs)
    assert plain.score == pytest.approx(f1_score(outputs.targets, outputs.probabilities >= 0.5, average="macro"))
    assert plain.score != results.score


def test_the_interval_is_as_wide_as_macro_f1_differs_from_draw_to_draw() -> None:
    scores = [labels(made_up.label_outputs(200, seed=seed)).score for seed in range(1, 60)]
    interval = labels(made_up.label_outputs(200)).interval
    assert interval is not None
    assert interval[1] - interval[0] == pytest.approx(4 * np.std(scores), rel=0.35)


def test_mistakes_of_both_kinds_are_sorted_by_how_sure_the_network_is() -> None:
    targets = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    probabilities = [[0.1, 0.9, 0.2], [0.1, 0.9, 0.8], [0.3, 0.4, 0.05], [0.1, 0.1, 0.1]]
    results = labels(answers(targets, probabilities))
    assert [mistake[:2] for mistake in results.mistakes(True)] == [(0, 1), (1, 2)]
    assert [mistake[:2] for mistake in results.mistakes(False)] == [(2, 2), (0, 0)]
    assert results.worst().tolist() == [2, 0, 1]
    assert results.shown() == {0, 1, 2}
    assert results.wanted() == [0, 1, 2]
    assert results.answer(0) == ("cat", "dog", pytest.approx(0.9), "dog 90.0%", False)
    assert results.answer(3)[:2] == ("(no label)", "(no label)")
    assert results.answer(3).is_right
    assert dict(results.looked_at()) == {2: 1, 0: 1, 1: 1, 3: 0}
    (wrong,) = [number.value for number in results.numbers("images") if number.name == "wrong labels"]
    assert wrong == "4"


def test_no_constant_answer_beats_every_label() -> None:
    outputs = made_up.label_outputs(100)
    name, score = labels(outputs).constant
    every = [[bool(number >> bit & 1) for bit in range(3)] for number in range(8)]
    constant = [macro_f1(outputs.targets, np.tile(labels_set, (100, 1))) for labels_set in every]
    assert score == pytest.approx(max(constant))
    assert name == "always every label"
    assert labels(answers([[1, 0, 1], [1, 0, 1], [0, 0, 1]], [[0.5] * 3] * 3)).most_frequent == ("cat|cow", 2 / 3)


@pytest.mark.filterwarnings("error")
def test_labels_that_no_sample_or_every_sample_has() -> None:
    outputs = made_up.label_outputs(60)
    targets = outputs.targets.copy()
    targets[:, 0], targets[:, 1] = 0, 1
    results = labels(MultiOutputs(outputs.indices, targets, outputs.logits))
    assert results.missing() == ["cat"]
    assert results.scores[-1].number == 0
    assert np.isnan(results.scores[-1].average_precision)
    by_number = {row.number: row for row in results.scores}
    assert np.isnan(by_number[1].auroc)
    assert by_number[1].average_precision == 1
    assert results.mean("auroc") == by_number[2].auroc
    assert "cat" not in results.verdict("test images")
    nothing = labels(MultiOutputs(outputs.indices, targets * 0, outputs.logits))
    assert nothing.score == 0
    assert np.isnan(nothing.mean("auroc"))
    assert nothing.missing() == NAMES


def test_all_right_is_said_and_has_no_mistakes() -> None:
    targets = [[1, 0, 0], [0, 1, 1]] * 5
    results = labels(answers(targets, [[0.9, 0.1, 0.1], [0.1, 0.9, 0.9]] * 5))
    assert results.score == results.perfect == 1
    assert "100.0% have exactly the right labels" in results.verdict("test images")
    assert results.interval is None
    assert results.shown() == set()
    assert results.advice() == []
