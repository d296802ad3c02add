import random
import sys
from pathlib import Path

import pytest

from tests.trials import failed, finished
from thaw.errors import UserError
from thaw.runs.trials import read_trials
from thaw.sweeping.importance import distribution, importance


def test_the_choice_that_decides_has_nearly_all_of_the_importance(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    draw = random.Random(0)
    for number in range(20):
        rate, plan, seed = 10 ** draw.uniform(-4, -1), draw.choice(["full", "gradual"]), draw.randrange(9)
        finished(tmp_path, number, rate, f"lr={rate:.4g}", f"freezing={plan}", f"seed={seed}", "same=1")
    failed(tmp_path, 20, "no", "lr=5", "freezing=full", "seed=0", "only=here")
    shares = importance(read_trials(tmp_path))
    assert set(shares) == {"lr", "freezing", "seed"}
    assert max(shares, key=lambda key: shares[key]) == "lr"
    assert shares["lr"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert importance(read_trials(tmp_path)) == shares


@pytest.mark.parametrize(
    ("scores", "key", "reason"),
    [
        ((0.1, 0.2, 0.3), "lr", "it needs 4 finished trials, and there are 3"),
        ((0.1, 0.2, 0.3, 0.4), "data.seed", "the finished trials differ in no choice"),
        ((0.1, 0.1, 0.1, 0.1), "lr", "all finished trials came to the same value"),
    ],
)
def test_why_there_is_none_is_said(tmp_path: Path, scores: tuple[float, ...], key: str, reason: str) -> None:
    for number, score in enumerate(scores):
        finished(tmp_path, number, score, f"{key}={number}")
    with pytest.raises(UserError, match=reason):
        importance(read_trials(tmp_path))


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        finished(tmp_path, number, number / 10, f"lr={number}")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="it needs Optuna: pip install -e"):
        importance(read_trials(tmp_path))


def test_values_that_are_numbers_count_as_numbers() -> None:
    optuna = pytest.importorskip("optuna")
    kinds = optuna.distributions
    assert distribution(["1", "3"]) == (kinds.IntDistribution(1, 3), [1, 3])
    assert distribution(["1", "30"]) == (kinds.IntDistribution(1, 30, log=True), [1, 30])
    assert distribution(["1e-3", "1"]) == (kinds.FloatDistribution(0.001, 1, log=True), [0.001, 1.0])
    assert distribution(["0", "0.5"]) == (kinds.FloatDistribution(0, 0.5), [0.0, 0.5])
    for texts in (["full", "1"], ["true", "false"], ["nan", "1"], [None, "1"]):
        kind, values = distribution(texts)
        assert values == [text or "" for text in texts]
        assert set(kind.choices) == set(values)
