"""Which head is chosen by validation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.finetuning.test_closed_form import gaussians
from thaw.finetuning.closed_form import LinearHead, discriminant_head
from thaw.training.head_choice import Candidate, candidates, choose, describe, results_of

ZERO = LinearHead(np.zeros((3, 4)), np.zeros(3))
LOSSES = np.random.default_rng(0).uniform(0.5, 1.5, 100)


def made(losses: NDArray[np.floating], name: str = "", right: int = 80) -> Candidate:
    return Candidate(name, ZERO, losses, np.arange(100) < right)


def test_a_head_gives_way_only_to_one_that_is_surely_better() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 100)
    noise -= noise.mean()  # its standard error is 0.1, about
    trained, by_chance, surely = made(LOSSES), made(LOSSES - 0.05 + noise), made(LOSSES - 0.2 + noise)
    assert choose([trained]) is trained
    assert choose([trained, by_chance, made(LOSSES + 0.1)]) is trained
    assert choose([trained, surely]) is surely
    assert choose([trained, by_chance, surely]) is surely
    assert choose([trained, surely, made(LOSSES - 0.25)]) is surely  # better than the trained one, and that by chance
    far = made(LOSSES - 0.9)
    assert choose([trained, surely, far]) is far
    one = [Candidate("", ZERO, np.array([loss]), np.array([True])) for loss in (1.0, 0.1)]
    assert choose(one) is one[0]  # a single sample says nothing


def test_candidates_are_compared_at_their_own_temperatures() -> None:
    features, targets = gaussians(400, 8)
    rng = np.random.default_rng(0)
    good = discriminant_head(features[None, :200], targets[:200], 3)
    trained = LinearHead(8 * (good.weight + rng.normal(size=(3, 8))), 8 * good.bias)  # too sure of itself
    first, mean, lda = candidates(trained, features[None, :200], targets[:200], features[200:], targets[200:])
    assert first.losses.mean() < np.log(3)
    for one in (first, mean, lda):
        logits = one.head.logits(features[200:])
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(200), targets[200:]]
        assert one.losses == pytest.approx(expected)
        assert np.array_equal(one.right, logits.argmax(axis=1) == targets[200:])
    assert choose([first, mean, lda]) in (mean, lda)
    direction = first.head.mean(lda.head).weight.ravel()
    assert np.corrcoef(direction, mean.head.weight.ravel())[0, 1] == pytest.approx(1)


def test_features_that_are_all_the_same_leave_the_trained_head() -> None:
    targets = np.arange(9) % 3
    features = np.ones((9, 3))
    found = candidates(LinearHead(np.eye(3), np.zeros(3)), features[None], targets, features, targets)
    assert [one.losses.mean() for one in found] == pytest.approx([np.log(3)] * 3)
    assert choose(found).name == "as trained"


def test_a_closed_form_that_is_always_right_is_not_endlessly_sure() -> None:
    targets = np.arange(30) % 3
    features = np.eye(3)[targets] + 1e-4 * np.random.default_rng(0).normal(size=(30, 3))
    _, _, lda = candidates(LinearHead(np.eye(3), np.zeros(3)), features[None], targets, features, targets)
    assert lda.right.all()
    assert lda.losses.mean() > 0.01  # its own logits, in the millions, would give 0


def test_the_choice_is_told_in_one_line() -> None:
    trained, lda = made(np.full(100, 0.52), "as trained"), made(np.full(100, 0.41), "LDA", right=90)
    results = results_of([trained, lda], lda)
    assert describe(results) == "head: LDA (validation log loss 0.4100; as trained 0.5200)"
    assert [result._asdict() for result in results][1] == pytest.approx(
        {"name": "LDA", "log_loss": 0.41, "accuracy": 0.9, "chosen": True}
    )
    assert describe(results_of([trained], trained)) == "head: as trained (validation log loss 0.5200)"
