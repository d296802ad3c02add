import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from tests.reporting.pictures.drawn import lines, points, predictions, texts
from thaw.reporting.pictures.precision_recall import precision_recall


def test_each_class_has_the_curve_and_the_average_precision_of_scikit_learn() -> None:
    targets, probabilities = predictions(200, 3)
    figure = precision_recall(targets, probabilities, ["a", "_b", "c"])
    assert lines(figure).keys() == {"a", "_b", "c"}
    for index, name in enumerate(["a", "_b", "c"]):
        precision, recall, _ = precision_recall_curve(targets == index, probabilities[:, index], drop_intermediate=True)
        np.testing.assert_array_equal(points(lines(figure)[name]), np.stack([recall, precision], axis=1))
        assert f"{average_precision_score(targets == index, probabilities[:, index]):.3f}" in texts(figure)


def test_of_two_classes_the_second_is_shown() -> None:
    targets, probabilities = predictions(100, 2)
    figure = precision_recall(targets, probabilities, ["healthy", "ill"])
    assert lines(figure).keys() == {"ill"}
    assert f"average precision {average_precision_score(targets, probabilities[:, 1]):.3f}" in texts(figure)


def test_of_many_classes_the_worst_are_shown_below_the_micro_average() -> None:
    targets, probabilities = predictions(2000, 30)
    names = [f"class {i}" for i in range(30)]
    scores = {n: average_precision_score(targets == i, probabilities[:, i]) for i, n in enumerate(names)}
    figure = precision_recall(targets, probabilities, names)
    assert list(lines(figure)) == ["micro average", *sorted(scores, key=scores.__getitem__, reverse=True)[-5:]]
    drawn = points(lines(figure)["micro average"])
    assert len(drawn) <= 500
    flat = np.eye(30)[targets].ravel()
    precision, recall, _ = precision_recall_curve(flat, probabilities.ravel(), drop_intermediate=True)
    assert set(drawn) <= set(zip(recall.tolist(), precision.tolist(), strict=True))
    assert drawn[-1] == (0, 1)
    assert f"average precision {np.mean(list(scores.values())):.3f}, mean of 30 classes" in texts(figure)


def test_classes_without_a_sample_are_named() -> None:
    targets, probabilities = predictions(50, 4)
    probabilities, targets = probabilities[targets < 2], targets[targets < 2]
    figure = precision_recall(targets, probabilities, ["a", "b", "c", "d"])
    assert lines(figure).keys() == {"a", "b"}
    assert "Without a sample: c, d." in texts(figure)
    assert texts(precision_recall([0], [[0.9, 0.1]], ["healthy", "ill"])) == ["Without a sample: ill."]
    assert texts(precision_recall([], [], ["a", "b", "c"])) == ["no samples."]
    assert lines(precision_recall([0, 0], [[1.0], [1.0]], ["only"])).keys() == {"only"}


def test_labels_have_a_curve_each_also_of_two() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (100, 2))
    probabilities = np.clip(targets * 0.3 + random.random((100, 2)) * 0.7, 0, 1)
    figure = precision_recall(targets, probabilities, ["cat", "dog"])
    assert lines(figure).keys() == {"cat", "dog"}
    mean = average_precision_score(targets, probabilities, average="macro")
    assert f"average precision {mean:.3f}, mean of 2 labels" in texts(figure)
    figure = precision_recall(targets * [1, 0], probabilities, ["cat", "dog"])
    assert "Without a sample: dog." in texts(figure)
    with pytest.raises(ValueError, match="targets are from 0 to 1"):
        precision_recall(targets * 2, probabilities, ["cat", "dog"])
