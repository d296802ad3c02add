import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassCalibrationError

from tests.reporting import made_up
from thaw.reporting.calibration import calibration
from thaw.reporting.classes import class_scores, confused_pairs, confusion_counts, macro_average
from thaw.reporting.intervals import accuracy_interval, macro_f1_interval
from thaw.reporting.kinds import results_of
from thaw.reporting.mistakes import CONFIDENT, EXAMPLES, PAIRS, confident_mistakes, mistakes_of
from thaw.tasks.outputs import ClassOutputs


def test_scores_are_those_of_scikit_learn_with_the_worst_class_first() -> None:
    outputs = made_up.outputs(6, 200, 0.7)
    targets, predictions = outputs.targets % 5, outputs.predictions  # 5 is predicted, but never true; 6 is neither
    expected = classification_report(targets, predictions, output_dict=True, zero_division=0)
    scores = class_scores(targets, predictions, 7)
    for row in scores:
        keys = ("precision", "recall", "f1-score", "support")
        assert row[1:] == pytest.approx([expected.get(str(row.number), dict.fromkeys(keys, 0))[key] for key in keys])
    assert [row.number for row in scores[-2:]] == [5, 6]
    assert [row.f1 for row in scores[:-2]] == sorted(row.f1 for row in scores[:-2])
    macro = macro_average(scores, confusion_counts(targets, predictions, 7))
    assert macro.f1 == pytest.approx(expected["macro avg"]["f1-score"])


def test_pairs_are_sorted_by_times_then_by_share_and_happened_twice() -> None:
    confusion = np.array([[5, 3, 1], [3, 0, 2], [0, 4, 9]])
    pairs = confused_pairs(confusion, 3)
    assert [pair[:3] for pair in pairs] == [(2, 1, 4), (1, 0, 3), (0, 1, 3)]
    assert pairs[1].share == pytest.approx(3 / 5)


def test_mistakes_are_the_wrong_ones_by_falling_confidence_and_what_is_wanted_is_bounded() -> None:
    outputs = made_up.outputs(50, 4000, 0.3)
    positions = confident_mistakes(outputs)
    assert set(positions) == set(np.flatnonzero(outputs.targets != outputs.predictions))
    assert (np.diff(outputs.probabilities.max(axis=1)[positions]) <= 0).all()
    chosen = mistakes_of(outputs, confusion_counts(outputs.targets, outputs.predictions, 50))
    assert chosen.confident == positions[:CONFIDENT].tolist()
    for (true, predicted), rows in chosen.examples.items():
        assert 1 <= len(rows) <= EXAMPLES
        assert {(outputs.targets[row], outputs.predictions[row]) for row in rows} == {(true, predicted)}
    wanted = results_of(outputs, [str(number) for number in range(50)]).wanted()
    assert len(wanted) == len(set(wanted)) <= CONFIDENT + PAIRS * EXAMPLES
    assert {int(outputs.indices[row]) for row in chosen.confident} <= set(wanted)


def test_calibration_is_that_of_torch_and_torchmetrics() -> None:
    outputs = made_up.outputs(5, 300, 0.8)
    for temperature in (1.0, 1.7):
        logits, targets = torch.tensor(outputs.logits).double() / temperature, torch.tensor(outputs.targets)
        nll, ece = calibration(outputs, temperature)
        assert nll == pytest.approx(cross_entropy(logits, targets).item())
        metric = MulticlassCalibrationError(5, n_bins=15)
        assert ece == pytest.approx(metric(logits.softmax(dim=1), targets).item(), abs=1e-6)


def test_huge_logits_have_finite_probabilities() -> None:
    outputs = ClassOutputs(np.arange(1), np.array([1]), np.array([[1e4, -1e4]], dtype=np.float32))
    assert outputs.probabilities.tolist() == [[1, 0]]
    assert calibration(outputs) == pytest.approx((2e4, 1))


@pytest.mark.parametrize(("accuracy", "total"), [(0.9, 300), (0.7, 300)])
def test_intervals_cover_the_true_score(accuracy: float, total: int) -> None:
    shares = np.array([0.5, 0.3, 0.2])
    truth = shares[:, None] * (accuracy * np.eye(3) + (1 - accuracy) / 2 * (1 - np.eye(3)))
    true_f1 = float(np.mean(2 * truth.diagonal() / (truth.sum(axis=0) + truth.sum(axis=1))))
    generator = np.random.default_rng(0)
    covered = np.zeros(2)
    for seed in range(200):
        confusion = generator.multinomial(total, truth.ravel()).reshape(3, 3)
        low, high = accuracy_interval(int(confusion.trace()), total)
        interval = macro_f1_interval(confusion, draws=200, seed=seed)
        assert interval is not None
        covered += low <= accuracy <= high, interval[0] <= true_f1 <= interval[1]
    assert (covered / 200 >= 0.9).all()
    assert (covered / 200 <= 0.99).all()


def test_intervals_where_nearly_all_or_none_are_right() -> None:
    assert accuracy_interval(270, 270) == pytest.approx((0.986, 1), abs=1e-3)
    assert accuracy_interval(0, 10) == pytest.approx((0, 0.278), abs=1e-3)
    assert macro_f1_interval(np.array([[200, 3], [2, 90]])) is None
    confusion = np.array([[200, 7], [5, 90]])
    assert macro_f1_interval(confusion) == macro_f1_interval(confusion) is not None
