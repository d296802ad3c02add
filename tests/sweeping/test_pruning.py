"""Trials are compared at the same epoch of the same phase, and nowhere else."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thaw.runs.trials import PRUNED, read_trial
from thaw.sweeping.pruning import HalvingPruning, MedianPruning, Place, Pruning, TrialPrunedError, values_in_phase

HEAD_THEN_ALL = [("head", 2), ("all stages", 4)]


def run(sweep: Path, name: int, values: list[float], phases: list[tuple[str, int]] = HEAD_THEN_ALL) -> Path:
    """A folder of a run that came as far."""
    folder = sweep / str(name)
    folder.mkdir()
    (folder / "phases.json").write_text(json.dumps([{"epochs": n, "trains": trains} for trains, n in phases]))
    rows = [f"{epoch},,{value}" for epoch, value in enumerate(values)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,loss/train,m/val", "0,0.5,", *rows, ""]))
    return folder


def after_epoch(callback: Pruning, folder: Path, value: float) -> None:
    """The end of the epoch that follows those in the folder's metrics.csv, with a value."""
    epoch = len((folder / "metrics.csv").read_text().splitlines()) - 2
    trainer: Any = SimpleNamespace(default_root_dir=str(folder), callback_metrics={"m/val": value}, current_epoch=epoch)
    callback.on_train_epoch_end(trainer, SimpleNamespace())  # type: ignore[arg-type]


def test_values_are_those_of_the_same_phase_up_to_the_same_epoch(tmp_path: Path) -> None:
    folder = run(tmp_path, 0, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert values_in_phase(folder, Place(1, "all stages", 1), "m/val") == {0: 0.3, 1: 0.4}
    assert values_in_phase(folder, Place(0, "head", 1), "m/val") == {0: 0.1, 1: 0.2}
    assert values_in_phase(folder, Place(1, "layer4, head", 1), "m/val") == {}
    assert values_in_phase(tmp_path / "absent", Place(0, "head", 1), "m/val") == {}
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,,nan\n6,,0.")  # another process is writing
    assert values_in_phase(folder, Place(1, "all stages", 4), "m/val") == {0: 0.3, 1: 0.4, 2: 0.5}


def test_a_trial_behind_the_median_is_ended_and_recorded(tmp_path: Path) -> None:
    for number, last in enumerate((0.5, 0.6, 0.7)):
        run(tmp_path, number, [0.1, 0.1, 0.2, last])
    rule = MedianPruning("m/val", "max", warmup_epochs=1, others=3)
    after_epoch(rule, run(tmp_path, 3, [0.1, 0.1]), 0.0)  # the first epoch of a phase is not judged
    after_epoch(rule, run(tmp_path, 4, [0.1, 0.1, 0.3]), 0.6)
    after_epoch(rule, run(tmp_path, 5, [0.1, 0.1, 0.6]), 0.3)  # its best counts
    with pytest.raises(TrialPrunedError, match=r"0.5900 after epoch 2 of phase 2, where 3 others ask for 0.6000"):
        after_epoch(rule, run(tmp_path, 6, [0.1, 0.1, 0.3]), 0.59)
    trial = read_trial("6", tmp_path / "6")
    assert trial.state == PRUNED
    assert trial.pruned == {**(trial.pruned or {}), "value": 0.59, "epoch": 4, "monitor": "m/val", "mode": "max"}


def test_less_may_be_better(tmp_path: Path) -> None:
    for number in range(3):
        run(tmp_path, number, [1.0, 0.5 + number / 10])
    rule = MedianPruning("m/val", "min", others=3)
    after_epoch(rule, run(tmp_path, 3, [1.0]), 0.55)
    with pytest.raises(TrialPrunedError):
        after_epoch(rule, run(tmp_path, 4, [1.0]), 0.65)


def test_another_plan_few_others_and_a_run_alone_are_not_judged(tmp_path: Path) -> None:
    rule = MedianPruning("m/val", "max", others=2)
    for number in range(3):
        run(tmp_path, number, [0.9, 0.9, 0.9, 0.9])
    late = [("head", 2), ("layer4, head", 4)]
    after_epoch(rule, run(tmp_path, 3, [0.9, 0.9, 0.1], late), 0.1)
    after_epoch(MedianPruning("m/val", "max", others=9), run(tmp_path, 4, [0.9, 0.9, 0.1]), 0.1)
    (tmp_path / "alone").mkdir()
    after_epoch(rule, run(tmp_path / "alone", 5, [0.9, 0.9, 0.1]), 0.1)


def test_a_third_goes_on_after_1_3_9_epochs(tmp_path: Path) -> None:
    for number, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
        run(tmp_path, number, [value] * 4, [("all stages", 9)])
    rule, phases = HalvingPruning("m/val", "max"), [("all stages", 9)]
    after_epoch(rule, run(tmp_path, 5, [], phases), 0.45)  # the second of six
    with pytest.raises(TrialPrunedError):
        after_epoch(rule, run(tmp_path, 6, [], phases), 0.35)
    after_epoch(rule, run(tmp_path, 7, [0.45], phases), 0.1)  # the second epoch is no rung
    with pytest.raises(TrialPrunedError):
        after_epoch(rule, run(tmp_path, 8, [0.2, 0.2], phases), 0.2)
