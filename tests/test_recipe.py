"""The study of the recipe: which cells it runs, and what its tables say."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
CELL = {"set": "sign_digits_small", "network": "glyphs", "epochs": [3, 5], "split": "val"}
MEASURED = {"log_loss": 0.5, "calibration_error": 0.1, "peak_mib": 800.0}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return import_module("recipe")


def outcome(column: str, seed: int, accuracy: float, curve: list[tuple[float, float]]) -> dict[str, Any]:
    best = max(value for _, value in curve)
    scores = {"accuracy": accuracy, "val_accuracy": best, "seconds": curve[-1][0], "curve": curve}
    return {**CELL, **MEASURED, **scores, "column": column, "seed": seed}


def test_the_table_says_when_each_contender_was_as_good_as_the_hand_loop(recipe: Any) -> None:
    printed = recipe.tables(
        [
            outcome("hand", 0, 0.8, [(10.0, 0.5), (20.0, 0.8), (30.0, 0.7)]),
            outcome("hand", 1, 0.9, [(10.0, 0.5), (20.0, 0.6), (30.0, 0.9)]),
            outcome("default", 0, 0.88, [(2.0, 0.7), (4.0, 0.8)]),
            outcome("default", 1, 0.92, [(2.0, 0.85), (4.0, 0.95)]),
            outcome("k-NN", 0, 0.4, [(1.0, 0.4)]),
            outcome("k-NN", 1, 0.4, [(3.0, 0.95)]),
        ]
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in printed.splitlines() if line.startswith("| ")}
    assert "no test split" in printed
    assert rows["default"] == "| default | 0.900 ± 0.028 | 0.875 ± 0.106 | 0.500 | 0.100 | 4.0 | 4.0 | 800 | 2 |"
    assert "| 30.0 | 25.0 | 800 | 2 |" in rows["hand"]
    assert "| 2.0 | 3.0 (1 of 2) | 800 | 2 |" in rows["k-NN"]
    assert rows["sign_digits_small, glyphs"] == ("| sign_digits_small, glyphs | 0.900 | hand | 0.850 | +0.050 | 0.13 |")


def test_plans_of_all_columns_are_as_long_as_those_of_the_peers(recipe: Any) -> None:
    assert recipe.plan_overrides(["caching=off"], (3, 5)) == ["freezing.probe_epochs=3", "freezing.epochs=8"]
    assert recipe.plan_overrides(["freezing=full"], (3, 5)) == ["freezing.epochs=8"]
    assert recipe.plan_overrides(["freezing=gradual", "freezing.epochs_per_stage=1"], (3, 5)) == []
    assert recipe.plan_overrides(["experiment=fast"], (3, 5)) == []


def test_only_cells_without_an_outcome_are_run(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(cell: Any, choices: Any) -> dict[str, Any] | None:
        asked.append((cell.set, cell.column, cell.seed, cell.epochs))
        return None if cell.column == "hand" else {**cell._asdict(), "accuracy": 0.5, "seconds": 1.0}

    monkeypatch.setattr(recipe, "in_process", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the study sets it
    words = ["--sets", "digits_5", "--columns", "slow", "hand", "--column", "slow=optimizer.lr=1e-4 seed=1"]
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--assets", ".", *words, "--seeds", "1", "--out", f"{tmp_path}/out"])
    recipe.main()
    assert sorted(asked) == [("digits_5", "hand", 0, (14, 70)), ("digits_5", "slow", 0, (14, 70))]
    assert "digits_5, glyphs, hand, seed 0: failed" in capsys.readouterr().out
    assert [json.loads(line)["column"] for line in (tmp_path / "out").read_text().splitlines()] == ["slow"]
    asked.clear()
    recipe.main()
    assert asked == [("digits_5", "hand", 0, (14, 70))]


def test_unknown_sets_and_columns_are_refused(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["--sets", "birds_5"], "birds_5 is none of sign_digits, "),
        (["--columns", "hands"], "--columns: hands is none of default, "),
        (["--column", "fast"], 'fast is not like "slow='),
        ([], "--assets <folder> is needed"),
    ):
        monkeypatch.setattr(sys, "argv", ["recipe.py", *words, *(["--assets", "."] if words else [])])
        with pytest.raises(SystemExit):
            recipe.main()
        assert message in capsys.readouterr().err
