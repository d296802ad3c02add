"""Workers of one search, side by side."""

import json
from pathlib import Path

import pytest
from filelock import FileLock
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler

from tests.sweeping.test_study import finish
from thaw.manifest import replacing
from thaw.runs.trials import record_failure
from thaw.sweeping.claims import claimed, is_locked
from thaw.sweeping.study import Study


@pytest.fixture
def study() -> Study:
    return Study({"x": FloatDistribution(0.0, 1.0)}, RandomSampler, 0, {})


def test_workers_have_trials_of_their_own_until_there_are_no_more(tmp_path: Path, study: Study) -> None:
    with claimed(tmp_path, 2, study) as first, claimed(tmp_path, 2, study) as second, claimed(tmp_path, 2, study) as no:
        assert first is not None
        assert second is not None
        assert [first.number, second.number, no] == [0, 1, None]
        assert first.overrides != second.overrides
        assert json.loads((tmp_path / "1/overrides.json").read_text()) == second.overrides


def test_a_trial_that_was_left_is_taken_up_with_its_values(tmp_path: Path, study: Study) -> None:
    with claimed(tmp_path, 3, study) as left:
        assert left is not None
    with replacing(tmp_path / "0/overrides.json") as file:  # as its run does
        file.write_text(json.dumps(["sweep=search", *left.overrides]))
    with claimed(tmp_path, 3, study) as again:
        assert again == left


def test_trials_that_have_ended_are_not_done_again(tmp_path: Path, study: Study) -> None:
    finish(tmp_path / "0", ["x=0.5"], 0.5)
    (tmp_path / "1").mkdir()
    record_failure(tmp_path / "1", ["x=0.6"], "NaN")
    with claimed(tmp_path, 9, study) as next_one:
        assert next_one is not None
        assert next_one.number == 2


def test_a_run_that_goes_on_without_its_worker_is_left_alone(tmp_path: Path, study: Study) -> None:
    with claimed(tmp_path, 2, study):
        pass
    with FileLock(tmp_path / "0/.lock"), claimed(tmp_path, 2, study) as other:
        assert is_locked(tmp_path / "0/.lock")
        assert other is not None
        assert other.number == 1
    with claimed(tmp_path, 2, study) as free:
        assert free is not None
        assert free.number == 0


def test_a_folder_that_was_made_and_no_more_gets_values(tmp_path: Path, study: Study) -> None:
    (tmp_path / "0").mkdir()
    with claimed(tmp_path, 1, study) as claim:
        assert claim is not None
        assert claim.overrides == study.suggest(0, [])
