"""Temperature scaling."""

import numpy as np
import pytest
from scipy.special import softmax

from thaw.tasks.calibration import fit_temperature, negative_log_likelihood


@pytest.mark.parametrize("true", [0.3, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 3
    targets = np.array([rng.choice(5, p=p) for p in softmax(logits / true, axis=1)])
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(true, rel=0.1)
    assert negative_log_likelihood(logits, targets, temperature) <= negative_log_likelihood(logits, targets)
    assert np.array_equal((logits / temperature).argmax(axis=1), logits.argmax(axis=1))


def test_without_a_mistake_it_stays_within_reason() -> None:
    logits = np.eye(3)[[0, 1, 2] * 4] * 5
    temperature = fit_temperature(logits, np.array([0, 1, 2] * 4))
    assert 0.3 < temperature <= 1
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1
