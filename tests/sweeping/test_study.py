"""What is suggested to a search follows from the folders of its trials alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BruteForceSampler, CmaEsSampler, RandomSampler, TPESampler

from thaw.errors import UserError
from thaw.runs.trials import read_trials, record_failure, record_pruned
from thaw.sweeping.study import Study

SPACE = {"x": FloatDistribution(0.0, 1.0), "lr": FloatDistribution(1e-4, 1.0, log=True)}


def study(sampler: Callable[..., Any] = RandomSampler, space: Any = None, seed: int = 0, **objectives: str) -> Study:
    return Study(space or SPACE, sampler, seed, objectives)


def finish(folder: Path, overrides: list[str], best: float, **metrics: float) -> None:
    """Leave what a trial leaves that ended well."""
    folder.mkdir(exist_ok=True)
    (folder / "overrides.json").write_text(json.dumps(["seed=1", *overrides]))
    results = {"monitor": "m/val", "mode": "max", "best": best, "epoch": 1, "seconds": 2.0, "metrics": metrics}
    (folder / "metrics.json").write_text(json.dumps(results))


def value(overrides: list[str], key: str) -> float:
    return float(dict(word.split("=") for word in overrides)[key])


def searched(sweep: Path, sampler: Callable[..., Any], trials: int, again: bool) -> list[list[str]]:
    """Overrides of trials whose metric falls with the distance of x from 0.7; `again`: each by a study of its own."""
    found, one = [], study(sampler)
    for number in range(trials):
        overrides = (study(sampler) if again else one).suggest(number, read_trials(sweep))
        finish(sweep / str(number), overrides, best=-abs(value(overrides, "x") - 0.7))
        found.append(overrides)
    return found


@pytest.mark.parametrize("sampler", [RandomSampler, TPESampler, CmaEsSampler])
def test_a_search_that_starts_again_suggests_the_same(tmp_path: Path, sampler: Callable[..., Any]) -> None:
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
    whole = searched(tmp_path / "once", sampler, 25, again=False)
    assert searched(tmp_path / "again", sampler, 25, again=True) == whole
    assert len({tuple(overrides) for overrides in whole}) == 25
    if sampler is not RandomSampler:
        assert all(abs(value(overrides, "x") - 0.7) < 0.3 for overrides in whole[-4:]), "it has learnt nothing"


def test_each_number_has_a_seed_of_its_own_and_values_are_short(tmp_path: Path) -> None:
    first = [study().suggest(number, []) for number in range(3)]
    assert len({tuple(overrides) for overrides in first}) == 3
    assert study(seed=1).suggest(0, []) != first[0]
    assert all(len(word.partition("=")[2]) <= 9 for word in first[0])


def test_values_stay_inside_their_space() -> None:
    narrow = {"x": FloatDistribution(0.12341, 0.12342)}
    assert 0.12341 <= value(study(space=narrow).suggest(0, []), "x") <= 0.12342


def test_a_grid_has_every_combination_once(tmp_path: Path) -> None:
    space = {"plan": CategoricalDistribution(["a", "b"]), "n": IntDistribution(1, 5, step=2)}
    grid = study(BruteForceSampler, space)
    assert grid.most_trials == 6
    for number in range(6):
        finish(tmp_path / str(number), grid.suggest(number, read_trials(tmp_path)), best=0.5)
    assert len({tuple(sorted(trial.overrides.items())) for trial in read_trials(tmp_path)}) == 6
    with pytest.raises(UserError, match="x has no end of values, and sampler=grid tries all of them"):
        study(BruteForceSampler).most_trials  # noqa: B018


def test_pruned_failed_and_running_trials_are_known(tmp_path: Path) -> None:
    one = study(TPESampler)
    for number in range(12):
        finish(tmp_path / str(number), one.suggest(number, read_trials(tmp_path)), best=number / 12)
    before = one.suggest(15, read_trials(tmp_path))
    for number, leave in ((12, "pruned"), (13, "failed"), (14, "running")):
        overrides = one.suggest(number, read_trials(tmp_path))
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/overrides.json").write_text(json.dumps(overrides))
        if leave == "pruned":
            record_pruned(tmp_path / "12", "m/val", "max", 0.1, 2, "behind")
        elif leave == "failed":
            record_failure(tmp_path / "13", overrides, "NaN")
        seen = one.suggest(15, read_trials(tmp_path))
        assert (seen == before) == (leave == "failed"), "failures say nothing; others do"
        before = seen


def test_several_objectives_and_one_that_was_not_measured(tmp_path: Path) -> None:
    both = study(TPESampler, **{"m/test": "max", "seconds": "min"})
    finish(tmp_path / "0", both.suggest(0, []), 0.5, **{"m/test": 0.6})
    (trial,) = read_trials(tmp_path)
    assert both.measured(trial) == [-0.6, 2.0]
    assert study(**{"m/val": "max"}).measured(trial) == [-0.5]
    with pytest.raises(
        UserError, match="auc/val, which the search is to improve, was not measured by trial 0: it has "
    ):
        study(**{"auc/val": "max"}).suggest(1, [trial])


def test_a_copy_for_the_dashboard_has_each_trial_once(tmp_path: Path) -> None:
    one, storage = study(), f"sqlite:///{tmp_path}/study.db"
    finish(tmp_path / "0", one.suggest(0, []), 0.25)
    one.copy_to(storage, "s", read_trials(tmp_path))
    record_pruned_at = tmp_path / "1"
    record_pruned_at.mkdir()
    (record_pruned_at / "overrides.json").write_text(json.dumps(one.suggest(1, [])))
    record_pruned(record_pruned_at, "m/val", "max", 0.1, 2, "behind")
    one.copy_to(storage, "s", read_trials(tmp_path))
    copied = optuna.load_study(study_name="s", storage=storage)
    assert [(t.state.name, t.values) for t in copied.trials] == [("COMPLETE", [0.25]), ("PRUNED", None)]
    assert copied.direction.name == "MAXIMIZE"
