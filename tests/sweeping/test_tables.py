import json
from pathlib import Path

import pytest

from thaw.runs.files import FAILURE_FILE
from thaw.runs.trials import best, read_trials, record_failure, trial_line
from thaw.sweeping.tables import shown_summary, table, write_summary


def trial(sweep: Path, name: int | str, score: float, mode: str = "max", **choices: str) -> None:
    folder = sweep / str(name)
    folder.mkdir()
    results = {"monitor": "m/val", "mode": mode, "best": score, "epoch": 4, "seconds": 2.5, "metrics": {"m/test": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(results))
    (folder / "overrides.json").write_text(json.dumps([f"{key}={value}" for key, value in choices.items()]))


def test_the_table_shows_what_varied_and_names_the_best_trial(tmp_path: Path) -> None:
    trial(tmp_path, 0, 0.8, lr="1", seed="0")
    trial(tmp_path, 10, 0.9, lr="2", seed="0")
    trial(tmp_path, 2, 0.9, lr="3", seed="0")
    (tmp_path / "3").mkdir()
    record_failure(tmp_path / "3", ["lr=4", "seed=0"], "no | stage\nand more")
    assert [t.name for t in read_trials(tmp_path)] == ["0", "2", "3", "10"]
    text, shown = write_summary(tmp_path), shown_summary(read_trials(tmp_path))
    assert (tmp_path / "summary.md").read_text() == text
    assert text.splitlines()[0] == "| trial | lr | status | best m/val | epoch | m/test | seconds |"
    assert "| 3 | 4 | failed: no \\| stage |" in text
    verdict = "best: trial 2, m/val = 0.9000 (lr=3), equalled by trial 10; 1 of 4 trials failed"
    assert text.splitlines()[-1] == shown.splitlines()[-1] == verdict
    assert "│ 3     │ 4  │ failed: no | stage │" in shown
    assert (tmp_path / "summary.csv").read_text().splitlines()[1] == "0,1,ok,0.8000,5,0.5000,2.5"


def test_folders_of_the_users_own_names_are_trials(tmp_path: Path) -> None:
    for rate in ("0.1", "0.02"):
        (tmp_path / "lr").mkdir(exist_ok=True)
        trial(tmp_path / "lr", f"lr={rate}", float(rate), lr=rate)
    (tmp_path / "lr/lr=0.1/checkpoints").mkdir()
    assert [t.name for t in read_trials(tmp_path)] == ["lr/lr=0.1", "lr/lr=0.02"]
    assert write_summary(tmp_path).splitlines()[-1] == "best: trial lr/lr=0.1, m/val = 0.1000 (lr=0.1)"


def test_a_finished_trial_is_one_line(tmp_path: Path) -> None:
    trial(tmp_path, 3, 0.8, lr="1", seed="0")
    results = json.loads((tmp_path / "3/metrics.json").read_text())
    (tmp_path / "3/metrics.json").write_text(json.dumps({**results, "metrics": {"m/val": 0.8}}))
    assert trial_line(tmp_path / "3", "m/val") == "trial 3  m/val 0.8000  2 s  lr=1 seed=0"
    assert trial_line(tmp_path / "3", "m/val", ["-m", "seed=0", "lr=1,2"]).endswith("2 s  lr=1")


def test_a_trial_that_fails_where_an_earlier_one_ended_is_shown_as_failed(tmp_path: Path) -> None:
    trial(tmp_path, 0, 0.8, lr="1")
    earlier = (tmp_path / "0/metrics.json").read_text()
    record_failure(tmp_path / "0", ["lr=2"], "holds a run already")
    assert "| 0 | failed: holds a run already |" in write_summary(tmp_path)
    assert (tmp_path / "0/metrics.json").read_text() == earlier


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"best": 1}', ""])
def test_a_trial_whose_results_are_damaged_is_named_and_the_others_are_shown(tmp_path: Path, content: str) -> None:
    for number in (0, 1):
        trial(tmp_path, number, 0.8, lr=str(number))
    (tmp_path / "1/metrics.json").write_text(content)
    (_, first, second) = table(read_trials(tmp_path))
    assert first[:3] == ["0", "0", "ok"]
    assert second[:2] == ["1", "1"]
    assert second[2].startswith(f"failed: {tmp_path}/1/metrics.json is damaged")


def test_a_sweep_without_a_trial_says_so(tmp_path: Path) -> None:
    assert write_summary(tmp_path).splitlines()[-1] == "no trial has left anything here"


def test_the_lowest_is_best_where_the_mode_says_so(tmp_path: Path) -> None:
    for number, score in enumerate((0.3, 0.1, 0.2)):
        trial(tmp_path, number, score, mode="min")
    winner = best(read_trials(tmp_path))
    assert winner is not None
    assert winner.name == "1"


def test_a_trial_that_came_to_no_end_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    assert table(read_trials(tmp_path))[1][:2] == ["0", "unfinished"]
    assert "no trial has a result yet" in write_summary(tmp_path)
    assert not (tmp_path / "0" / FAILURE_FILE).exists()
