from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as counted

from tests.reporting.pictures.drawn import predictions, texts
from thaw.reporting.pictures.confusion import confusion_matrix


def test_counts_are_written_and_colours_are_shares_of_the_true_class() -> None:
    targets, probabilities = predictions(300, 10)
    expected = counted(targets, probabilities.argmax(axis=1), labels=range(10))
    figure = confusion_matrix(targets, probabilities, [f"class {i}" for i in range(10)])
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(column, row): str(expected[row, column]) for row, column in np.argwhere(expected)}
    wrong, right = (image.get_array() for image in figure.axes[0].images)
    shares = expected / expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.where(np.eye(10), right, wrong), shares)
    assert right.mask.sum() == 90
    assert f"{np.trace(expected)} of 300 right ({np.trace(expected) / 300:.1%})" in texts(figure)


def test_the_most_confused_pairs_are_listed_by_count() -> None:
    targets = np.repeat([0, 1, 2], [6, 4, 2])
    predicted = np.array([0, 1, 1, 1, 2, 0, 1, 1, 0, 0, 2, 2])
    figure = confusion_matrix(targets, np.eye(3)[predicted], ["a", "b", "c"])
    assert [text.get_text() for text in figure.axes[1].texts] == [
        *("most confused", "a → b", "3 of 6", "b → a", "2 of 4", "a → c", "1 of 6")
    ]


def test_200_classes_have_few_names_and_no_counts_but_every_confusion() -> None:
    targets, probabilities = predictions(3000, 200)
    figure = confusion_matrix(targets, probabilities, [f"a bird with a long name, number {i}" for i in range(200)])
    texts(figure)
    axes = figure.axes[0]
    assert not axes.texts
    for ticks in (axes.xaxis, axes.yaxis):
        assert 10 <= len(ticks.get_ticklabels()) <= 25
        boxes = [label.get_window_extent() for label in ticks.get_ticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert axes.get_window_extent().width > 2 * 150  # pixels; no label has eaten up the matrix
    expected = counted(targets, probabilities.argmax(axis=1), labels=range(200))
    assert (np.asarray(axes.images[0].get_array()) > 0).sum() == (expected * ~np.eye(200, dtype=bool) > 0).sum()


def test_with_more_classes_than_pixels_no_confusion_is_lost() -> None:
    probabilities = np.eye(1000)[[999, 1, 500]]
    figure = confusion_matrix([3, 1, 500], probabilities, [str(i) for i in range(1000)])
    wrong, right = (image.get_array() for image in figure.axes[0].images)
    assert wrong.shape == (200, 200)
    assert np.argwhere(wrong).tolist() == [[0, 199]]
    assert right[0, 0] == right[100, 100] == 1


def test_without_samples_or_numbers_it_says_so() -> None:
    assert texts(confusion_matrix([], np.zeros((0, 2)), ["a", "b"])) == ["no samples."]
    diverged = confusion_matrix([0, 1], np.full((2, 2), np.nan), ["a", "b"])
    assert texts(diverged) == ["no samples. Left out: 2 of 2 samples, with probabilities that are not finite."]
    assert "1 of 1 right (100.0%)" in texts(confusion_matrix([0], [[1.0]], ["only"]))


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(2,\) and \(3, 2\)"):
        confusion_matrix([0, 1], np.zeros((3, 2)), ["a", "b"])
    with pytest.raises(ValueError, match="1 class_names for probabilities of 2 classes"):
        confusion_matrix([0], np.zeros((1, 2)), ["a"])
    with pytest.raises(ValueError, match="targets are from 0 to 1, not -1 to 0"):
        confusion_matrix([-1, 0], np.zeros((2, 2)), ["a", "b"])
