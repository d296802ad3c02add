"""Results of samples with numbers."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from tests.reporting import made_up
from thaw.reporting.kinds import results_of
from thaw.reporting.number_results import NumberResults
from thaw.tasks.outputs import NumberOutputs

SIZES = ["length", "width", "weight"]


def numbers(outputs: NumberOutputs) -> NumberResults:
    results = results_of(outputs, SIZES[: outputs.logits.shape[1]])
    assert isinstance(results, NumberResults)
    return results


def given(true: list[list[float]], predicted: list[list[float]]) -> NumberResults:
    return numbers(NumberOutputs(np.arange(len(true)), np.array(true, float), np.array(predicted, float)))


@pytest.mark.parametrize("columns", [1, 3])
def test_scores_are_those_of_scikit_learn_and_scipy(columns: int) -> None:
    outputs = made_up.number_outputs(200, columns)
    results = numbers(outputs)
    for row in results.scores:
        true, predicted = outputs.targets[:, row.number], outputs.values[:, row.number]
        assert row.mae == pytest.approx(mean_absolute_error(true, predicted))
        assert row.rmse == pytest.approx(root_mean_squared_error(true, predicted))
        assert row.r2 == pytest.approx(r2_score(true, predicted))
        assert row.spearman == pytest.approx(spearmanr(true, predicted).statistic)
        assert (row.mean, row.std) == pytest.approx((true.mean(), true.std()))
        assert row.interval[0] < row.mae < row.interval[1]
    assert results.score == pytest.approx(mean_absolute_error(outputs.targets, outputs.values))
    assert results.r2 == pytest.approx(r2_score(outputs.targets, outputs.values))


def test_the_interval_is_as_wide_as_the_error_differs_from_draw_to_draw() -> None:
    scores = [numbers(made_up.number_outputs(200, seed=seed)).score for seed in range(1, 60)]
    low, high = numbers(made_up.number_outputs(200)).interval
    assert high - low == pytest.approx(4 * np.std(scores), rel=0.35)


def test_the_sentence_has_the_unit_of_the_user_and_each_quantity() -> None:
    one = given([[0.0], [10.0], [20.0]], [[1.0], [9.0], [21.0]])
    assert one.verdict("test texts") == (
        "The length of 3 test texts is off by 1 (95% interval 1 to 1) on average; R² is 0.985; always the median would "
        "be off by 6.67"
    )
    two = given([[0.0, 1000.0], [2.0, 3000.0]], [[1.0, 1000.0], [2.0, 3000.0]]).verdict("val images")
    assert two.startswith("Of 2 val images, it is off on average: length by 0.5 (95% interval 0 to 1), width by 0 (")
    assert "a mean of 0.25" in two
    assert "the median would be off by 500" in two


def test_the_best_constant_answer_is_the_median() -> None:
    assert given([[0.0], [1.0], [11.0]], [[0.0]] * 3).constant == ("always the median", pytest.approx(11 / 3))


def test_the_largest_errors_are_first_and_quantities_count_in_standard_deviations() -> None:
    one = given([[0.0], [10.0], [20.0]], [[1.0], [7.0], [20.0]])
    assert one.worst().tolist() == [1, 0, 2]
    assert one.answer(1) == ("10", "7", 3, "3", None)
    assert one.measured == "off by"
    three = given([[0, 0, 0], [1, 100, 1], [2, 200, 2]], [[0, 30, 0], [1.9, 100, 1], [2, 200, 2]])
    assert three.worst().tolist() == [1, 0, 2]  # 0.9 of 0.8, not 30 of 82
    answer = three.answer(1)
    assert answer.true == "length 1, width 100, weight 1"
    assert answer.text.startswith("length, 1.1")
    assert three.measured == "off by, in std"
    assert {number for _, number in three.looked_at()} == {0}


@pytest.mark.filterwarnings("error")
def test_constant_numbers_one_sample_and_diverged_networks() -> None:
    same = given([[5.0]] * 4, [[5.0], [6.0], [4.0], [5.0]])
    assert np.isnan(same.scores[0].r2)
    assert np.isnan(same.scores[0].spearman)
    assert "R²" not in same.verdict("test images")
    assert [number.value for number in same.numbers("images")][2:] == ["none", "none"]
    assert same.constant[1] == 0
    one = given([[5.0]], [[6.0]])
    assert one.score == 1
    assert [row for row, _ in one.looked_at()] == [0]
    diverged = given([[5.0], [6.0]], [[np.nan], [6.0]])
    assert np.isnan(diverged.score)
    assert "nan" in diverged.verdict("test images")
    assert diverged.charts()


def test_advice_on_biased_predictions_and_on_wrong_labels() -> None:
    true = np.arange(40.0)[:, None]
    noise = np.tile([0.5, -0.5], 20)[:, None]
    assert given(true.tolist(), (true + noise).tolist()).advice() == []
    (piece,) = given(true.tolist(), (true + noise + 1).tolist()).advice()
    assert piece == ("errors", "Predictions of length are too large by 1 on average.")
    wrong = true + noise
    wrong[0] += 20
    sections = [advice.section for advice in given(true.tolist(), wrong.tolist()).advice()]
    assert sections[0] == "mistakes"
