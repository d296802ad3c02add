"""Means over trials that repeat the same choices."""

import json
from pathlib import Path

from tests.trials import begun, finished
from thaw.runs.groups import baselines, groups, not_clearly_worse, spread
from thaw.runs.trials import read_trials
from thaw.sweeping.tables import means, write_summary

SCORES = {"a": (0.75, 1.0), "b": (0.5, 1.0), "c": (0.0, 0.25)}
"""By plan, of the seeds 0 and 1."""


def a_ladder(folder: Path) -> Path:
    for number, (plan, seed) in enumerate((plan, seed) for plan in SCORES for seed in (0, 1)):
        trial = finished(folder, number, SCORES[plan][seed], f"freezing={plan}", f"seed={seed}", seconds=1 + number)
        scores = {"m": {"k-NN": 0.25 * seed, "constant": 0.125}, "split": "test"}
        (trial / "baselines.json").write_text(json.dumps(scores))
    begun(folder, 6, "freezing=c", "seed=2")
    return folder


def test_what_lies_within_the_spread_of_the_best_is_not_clearly_worse(tmp_path: Path) -> None:
    found = groups(read_trials(a_ladder(tmp_path)))
    assert [(group.choice, group.mean) for group in found] == [
        ("freezing=a", 0.875),
        ("freezing=b", 0.75),
        ("freezing=c", 0.125),
    ]
    assert [group.choice for group in not_clearly_worse(found)] == ["freezing=b"]
    assert sorted(found[1].test_values) == [0.375, 0.875]
    assert found[1].seconds == 3.5
    assert spread([0.5]) == "0.5000"
    assert spread([]) == ""


def test_methods_that_train_nothing_count_once_a_seed(tmp_path: Path) -> None:
    sweep = a_ladder(tmp_path)
    (sweep / "3/baselines.json").write_text("{")
    (sweep / "4/baselines.json").write_text('{"split": "val", "m": {"k-NN": 1.0}}')
    assert baselines(read_trials(sweep)) == {"k-NN": [0.25, 0.0], "constant": [0.125, 0.125]}


def test_the_summary_says_which_choice_to_take(tmp_path: Path) -> None:
    rows = means(read_trials(a_ladder(tmp_path)))
    assert rows[0] == ["choice", "best m/val", "m/test", "seconds", "trials"]
    assert rows[1] == ["freezing=a", "0.8750 ± 0.1768", "0.7500 ± 0.1768", "1.5", "2"]
    assert rows[4] == ["k-NN", "", "0.1250 ± 0.1768", "", "2"]
    text = write_summary(tmp_path)
    assert "best mean: freezing=a, m/val = 0.8750 ± 0.1768, not clearly better than freezing=b (4 s a trial)" in text
    assert means(read_trials(tmp_path)[:1]) == []
