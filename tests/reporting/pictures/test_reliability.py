import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from tests.reporting.pictures.drawn import lines, points, predictions, texts
from thaw.reporting.pictures.reliability import reliability, reliability_bins


@pytest.mark.parametrize(("samples", "classes", "bins"), [(500, 10, 15), (300, 2, 15), (1, 3, 15), (400, 200, 7)])
def test_the_calibration_error_is_that_of_torchmetrics(samples: int, classes: int, bins: int) -> None:
    targets, probabilities = predictions(samples, classes, seed=samples)
    probabilities[::5] = np.eye(classes)[0]  # confidences of exactly 1, right and wrong
    expected = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(targets), classes, n_bins=bins, norm="l1"
    )
    assert reliability_bins(targets, probabilities, bins).ece == pytest.approx(expected.item(), abs=1e-6)


def test_bins_hold_every_sample_once() -> None:
    probabilities = np.array([[0.5, 0.5], [0.55, 0.45], [0.28, 0.72], [1.0, 0.0], [0.04, 0.96]])
    binned = reliability_bins([0, 1, 1, 0, 0], probabilities, bins=10)
    assert binned.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 1, 0, 2]
    np.testing.assert_allclose(binned.confidence[[5, 7, 9]], [0.525, 0.72, 0.98])
    np.testing.assert_allclose(binned.accuracy[[5, 7, 9]], [0.5, 1, 0.5])
    assert np.isnan(binned.accuracy[0])


def test_points_and_bars_are_those_of_the_bins() -> None:
    targets, probabilities = predictions(300, 5)
    sharper = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    figure = reliability(targets, sharper, calibrated=probabilities)
    for name, values in (("as trained", sharper), ("calibrated", probabilities)):
        binned = reliability_bins(targets, values)
        filled = binned.counts > 0
        expected = np.stack([binned.confidence[filled], binned.accuracy[filled]], axis=1)
        np.testing.assert_array_equal(points(lines(figure)[name]), expected)
        (bars,) = (bars for bars in figure.axes[1].containers if bars.get_label() == name)
        assert [bar.get_height() for bar in bars] == binned.counts.tolist()
        assert f"{name}: expected calibration error {binned.ece:.3f}" in texts(figure)


def test_without_samples_it_says_so() -> None:
    assert texts(reliability([], np.zeros((0, 3)))) == ["no samples."]
    assert np.isnan(reliability_bins([], []).ece)
    diverged = reliability([0, 1], [[0.2, 0.8], [0.3, 0.7]], calibrated=np.full((2, 2), np.nan))
    assert "calibrated: expected calibration error nan" in texts(diverged)
