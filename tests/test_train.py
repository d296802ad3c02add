"""Whole runs of `train`, on a tiny network."""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig
from safetensors.torch import load_file

from tests.conftest import TINY
from tests.killing import killed
from tests.photos import photos
from thaw.config import trainers
from thaw.config.assemble import assemble
from thaw.data.loader import default_workers
from thaw.evaluate import evaluate
from thaw.manifest import is_intact, read_manifest
from thaw.models.weights import read_checkpoint
from thaw.runs.confusion import read_confusion
from thaw.runs.files import read_rows
from thaw.train import train
from thaw.training.checkpoint import RunCheckpoint

Config = Callable[..., DictConfig]

THREE_PHASES = (
    "freezing=phases",
    "freezing.phases=[{epochs: 2, train: [head]}, {epochs: 2, train: ['layer*.bias', head], lr_scale: 0.5}, "
    "{epochs: 2, train: ['*'], lr_scale: 0.2}]",
)


@pytest.mark.parametrize("freezing", ["head_only", "full", "probe_then_full", "gradual", "chain_thaw", "phases"])
def test_every_plan_runs_for_its_epochs(config: Config, tmp_path: Path, freezing: str) -> None:
    train(config(*TINY, f"freezing={freezing}", "data.labels_per_class=2"))
    with (tmp_path / "run/metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["loss/val"]]
    expected = {"chain_thaw": 10}.get(freezing, 12)
    assert epochs == list(range(expected))


def test_a_run_folder_holds_what_it_says(config: Config, tmp_path: Path) -> None:
    metrics = train(config(*TINY, "freezing=full", "freezing.epochs=3", "logger=tensorboard", "refit=off"))
    run = tmp_path / "run"
    best = json.loads((run / "metrics.json").read_text())
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events")}
    assert found - events == {
        "config.yaml",
        "overrides.json",
        "data.txt",
        "samples.csv",
        "input_spec.json",
        "class_names.json",
        best["best_checkpoint"],
        "checkpoints/last.ckpt",
        "checkpoints/manifest.json",
        ".lock",
        "metrics.csv",
        "metrics.json",
        "confusion_test.csv",
        "outputs_val.npz",
        "outputs_test.npz",
        "calibration.json",
        "phases.json",
        "environment.json",
        "weights.safetensors",
        "manifest.json",
        "tensorboard/hparams.yaml",
        "train.log",
    }
    assert best["metrics"] == metrics
    unverified = {name for name in found if name.startswith(("tensorboard", "checkpoints"))}
    assert set(read_manifest(run)) == found - unverified - {"manifest.json", ".lock", "train.log"}
    assert all(is_intact(run / name) for name in read_manifest(run))
    assert best["best"] == metrics["accuracy/val"]
    assert best["best_checkpoint"] == f"checkpoints/best-phase1-epoch{best['epoch']:03d}.ckpt"
    assert json.loads((run / "class_names.json").read_text()) == [str(digit) for digit in range(10)]

    checkpoint = torch.load(run / best["best_checkpoint"], weights_only=True)
    assert checkpoint["epoch"] == best["epoch"]
    assert checkpoint["class_names"] == [str(digit) for digit in range(10)]
    assert {"loss/train", "loss/val", "accuracy/train", "accuracy/val"} <= checkpoint["metrics"].keys()
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert not [name for name in last["metrics"] if "lr" in name]  # of step 9, and not of the epoch
    weights = load_file(run / "weights.safetensors")
    for name, value in weights.items():
        assert torch.equal(value, checkpoint["state_dict"][f"network.{name}"])


@pytest.mark.parametrize("callbacks", ["default", pytest.param("ema", marks=pytest.mark.run)])
def test_evaluate_gives_the_metrics_of_the_run_to_the_last_digit(
    config: Config, tmp_path: Path, callbacks: str
) -> None:
    metrics = train(config(f"callbacks={callbacks}", *TINY, *THREE_PHASES))
    for split in ("test", "val"):
        again = evaluate(config(f"run={tmp_path / 'run'}", f"split={split}", name="evaluate"))
        assert again == {name: value for name, value in metrics.items() if name.endswith(f"/{split}")}
        assert len(again) == 6


@pytest.mark.parametrize("callbacks", ["default", pytest.param("ema", marks=pytest.mark.run)])
def test_the_confusion_matrix_is_of_the_test_that_gave_the_metrics(
    config: Config, tmp_path: Path, callbacks: str
) -> None:
    metrics = train(config(f"callbacks={callbacks}", *TINY, "freezing.probe_epochs=1", "freezing.epochs=2"))
    run = tmp_path / "run"
    assert (run / "confusion_test.csv").read_text().startswith("true \\ predicted,0,1,2,3,4,5,6,7,8,9\n0,")
    found = read_confusion(run / "confusion_test.csv")
    assert found.class_names == json.loads((run / "class_names.json").read_text())
    with (run / "samples.csv").open() as file:
        tested = Counter(row["label"] for row in csv.DictReader(file) if row["split"] == "test")
    assert {name: sum(row) for name, row in zip(found.class_names, found.counts, strict=True)} == tested
    right = sum(row[i] for i, row in enumerate(found.counts))
    assert right / tested.total() == pytest.approx(metrics["accuracy/test"])
    assert right < tested.total()  # else the order of rows and columns would not matter
    confusion = (run / "confusion_test.csv").read_text()
    evaluate(config(f"run={run}", name="evaluate"))
    assert (run / "confusion_test.csv").read_text() == confusion


def test_each_test_counts_anew(config: Config) -> None:
    parts = assemble(config(*TINY, "data.test_fraction=0.02"))
    trainer = trainers.trainer_without_logs(parts.cfg)
    for _ in range(2):
        trainer.test(parts.module, parts.loaders(), verbose=False)
        assert parts.module.confusion is not None
        assert parts.module.confusion.sum() == len(parts.samples.splits.test)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(("schedule=one_cycle", "head.dropout=0.3"), marks=pytest.mark.run),
        ("schedule=warmup_cosine", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"),
        pytest.param(("schedule=constant", "optimizer=sgd", "callbacks=ema"), marks=pytest.mark.run),
        pytest.param(("mixing=mixup", "data.balance=sampler"), marks=pytest.mark.run),
        pytest.param(("callbacks=ema", "trainer.precision=bf16-true"), marks=pytest.mark.run),
    ],
)
def test_a_run_resumed_after_any_epoch_ends_bit_identical(
    config: Config, tmp_path: Path, choices: tuple[str, ...]
) -> None:
    train(config(*choices, *TINY, *THREE_PHASES, "callbacks.checkpoint.save_top_k=-1"))
    run = tmp_path / "run"
    whole = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    rows = (run / "metrics.csv").read_text()
    weights = load_file(run / "weights.safetensors")
    for epoch in (0, 1, 4):  # within a phase, where one ends, and in the last one
        (checkpoint,) = (run / "checkpoints").glob(f"best-phase{epoch // 2 + 1}-epoch{epoch:03d}.ckpt")
        (run / "weights.safetensors").unlink()
        train(config(f"resume={checkpoint}"))
        resumed = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        assert_same(resumed["state_dict"], whole["state_dict"])
        assert_same(resumed["optimizer_states"], whole["optimizer_states"])
        assert_same(resumed["lr_schedulers"], whole["lr_schedulers"])
        assert_same(load_file(run / "weights.safetensors"), weights)
        assert sorted((run / "metrics.csv").read_text().splitlines()) == sorted(rows.splitlines())


def test_the_last_checkpoint_is_of_the_last_epoch_also_when_it_is_no_better(config: Config, tmp_path: Path) -> None:
    train(
        config(*TINY, "freezing=head_only", "freezing.epochs=3", "monitor.metric=plan/phase", "monitor.mode=max")
    )  # never better
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    assert (tmp_path / "run/checkpoints/best-phase1-epoch000.ckpt").exists()


def test_a_run_folder_may_be_moved(config: Config, tmp_path: Path) -> None:
    train(config(*TINY, *THREE_PHASES, "callbacks.checkpoint.save_top_k=-1"))
    whole, moved = tmp_path / "run", tmp_path / "elsewhere"
    results = json.loads((whole / "metrics.json").read_text())
    whole.rename(moved)
    assert evaluate(config(f"run={moved}", name="evaluate"))["loss/test"] == results["metrics"]["loss/test"]
    for epoch in (3, 5):
        (checkpoint,) = (moved / "checkpoints").glob(f"best-*-epoch{epoch:03d}.ckpt")
        train(config(f"resume={checkpoint}"))
        again = json.loads((moved / "metrics.json").read_text())
        assert {**again, "seconds": 0} == {**results, "seconds": 0}
    assert not whole.exists()


def assert_same(one: object, other: object) -> None:
    """Equal to the last bit, however nested."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    elif isinstance(one, dict):
        assert one.keys() == other.keys()  # type: ignore[attr-defined]
        for key in one:
            assert_same(one[key], other[key])  # type: ignore[index]
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)  # type: ignore[arg-type]
        for a, b in zip(one, other, strict=True):  # type: ignore[call-overload]
            assert_same(a, b)
    else:
        assert one == other


def test_a_new_run_starts_from_the_weights_of_another(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    train(config(*TINY, "freezing.epochs=4", "freezing.probe_epochs=3"))
    first = load_file(tmp_path / "run/weights.safetensors")
    train(
        config(
            *TINY,
            "freezing=head_only",
            "freezing.epochs=1",
            f"init_from={tmp_path / 'run'}",
            f"run_folder={tmp_path / 'two'}",
        )
    )
    second = load_file(tmp_path / "two/weights.safetensors")
    backbone = [name for name in first if not name.startswith("head.")]
    assert backbone
    assert all(torch.equal(first[name], second[name]) for name in backbone)
    assert not torch.equal(first["head.1.weight"], second["head.1.weight"])
    assert "tensors matched, 0 missing, 0 surplus" in caplog.text


def test_last_is_a_second_name_of_the_best_where_it_is_the_same(config: Config, tmp_path: Path) -> None:
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    best, last = sorted((tmp_path / "run/checkpoints").glob("*.ckpt"))
    assert os.path.samefile(best, last)
    train(
        config(
            *TINY,
            "freezing=head_only",
            "freezing.epochs=1",
            "+callbacks.checkpoint.save_weights_only=true",
            f"run_folder={tmp_path}/weights_only",
        )
    )
    best, last = sorted((tmp_path / "weights_only/checkpoints").glob("*.ckpt"))
    assert "optimizer_states" not in read_checkpoint(best)
    assert "optimizer_states" in read_checkpoint(last)


@pytest.mark.parametrize(("seconds", "written"), [(0, [0, 1, 2, 3]), (1000, [0, 3])])
def test_last_is_not_written_at_every_epoch_but_at_the_end(
    seconds: float, written: list[int], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    save = RunCheckpoint._save_last

    def noted(self: RunCheckpoint, trainer: Trainer, same: Path | None) -> None:
        epochs.append(trainer.current_epoch)
        save(self, trainer, same)

    monkeypatch.setattr(RunCheckpoint, "_save_last", noted)
    never_better = ("monitor.metric=plan/phase", "monitor.mode=max", "refit=off")
    seldom = f"callbacks.checkpoint.last_every_seconds={seconds}"
    train(config(*TINY, "freezing=full", "freezing.epochs=4", *never_better, seldom))
    assert epochs == written


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(config: Config, tmp_path: Path) -> None:
    explode = (
        "freezing=phases",
        "freezing.phases=[{epochs: 1, train: [head]}, {epochs: 3, train: ['*'], lr_scale: 1e38}]",
    )
    with pytest.raises(
        FloatingPointError, match=r"the loss is (nan|inf) in epoch [12], (train|val) batch \d+ \(phase 2 of 2"
    ) as error:
        train(config(*TINY, *explode))
    assert "optimizer.lr" in str(error.value)
    last_line = (tmp_path / "run/train.log").read_text().splitlines()[-1]
    assert last_line == f"thaw.errors.NonFiniteLossError: {error.value}"
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(value.isfinite().all() for value in last["state_dict"].values())


@pytest.mark.parametrize("debug", ["fast_dev_run", "overfit", "profiler"])
def test_debug_configurations_run(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, debug: str) -> None:
    caplog.set_level("INFO")
    metrics = train(config(*TINY, f"debug={debug}"))
    assert "loss/test" in metrics
    if debug == "overfit":
        assert metrics["accuracy/train"] > 0.4
    assert ("FIT Profiler Report" in caplog.text) == (debug == "profiler")
    assert any(tmp_path.rglob("*.ckpt")) == (debug != "fast_dev_run")


@pytest.mark.parametrize(
    "choices",
    [
        ("trainer.precision=bf16-mixed",),
        ("loss.label_smoothing=0.1", "data.balance=loss"),
        ("mixing=mixup", "data.balance=sampler"),
        ("callbacks=ema", "trainer.precision=bf16-true"),
        ("mixing=cutmix",),
        ("data.num_workers=1",),
    ],
)
def test_other_choices_run(config: Config, choices: tuple[str, ...]) -> None:
    assert train(config(*TINY, *choices, "freezing=full", "freezing.epochs=2"))["loss/train"] < 3


@pytest.mark.run
def test_augmented_images_resume_bit_identical_whatever_the_workers(config: Config, tmp_path: Path) -> None:
    images = ("data=image_folder", f"data.root={photos(tmp_path)}", "data.labels_per_class=null", "mixing=cutmix")
    choices = (*TINY, "+backbone.channels=3", *images, "data.augment=strong", "freezing.probe_epochs=1")
    keep = ("freezing.epochs=3", "callbacks.checkpoint.save_top_k=-1", "data.batch_size=4")
    train(config(*choices, *keep, f"data.num_workers={min(2, default_workers())}"))
    whole = load_file(tmp_path / "run/weights.safetensors")
    train(config(*choices, *keep, "data.num_workers=0", f"run_folder={tmp_path / 'alone'}"))
    assert_same(load_file(tmp_path / "alone/weights.safetensors"), whole)
    for epoch in range(2):
        (checkpoint,) = (tmp_path / "run/checkpoints").glob(f"best-*-epoch{epoch:03d}.ckpt")
        train(config(f"resume={checkpoint}"))
        assert_same(load_file(tmp_path / "run/weights.safetensors"), whole)


def test_a_head_of_other_classes_is_not_taken_over_even_if_as_many(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root = photos(tmp_path)
    choices = (*TINY, "+backbone.channels=3", "data=image_folder", f"data.root={root}", "data.labels_per_class=null")
    short = ("freezing=head_only", "freezing.epochs=1", "data.num_workers=0")
    train(config(*choices, *short))
    again = (f"init_from={tmp_path / 'run'}", f"run_folder={tmp_path / 'two'}")
    train(config(*choices, *short, *again))
    assert "23 tensors matched, 0 missing" in caplog.text
    caplog.clear()
    (root / "red").rename(root / "amber")
    train(config(*choices, *short, again[0], f"run_folder={tmp_path / 'three'}"))
    assert "21 tensors matched, 2 missing (head.1.weight, head.1.bias), 0 surplus" in caplog.text
    with pytest.raises(ValueError, match="trained on the classes blue, green, red; this data also has amber"):
        evaluate(config(f"run={tmp_path / 'run'}", name="evaluate"))
    with pytest.raises(ValueError, match="trained on the classes blue, green, red; this data also has amber"):
        train(config(f"resume={tmp_path / 'run'}"))


@pytest.mark.run
def test_a_run_that_stopped_early_stays_so_when_resumed(config: Config, tmp_path: Path) -> None:
    stop = ("callbacks.early_stopping.patience=2", "monitor.metric=plan/phase", "monitor.mode=max")  # never better
    train(config(*TINY, "freezing=full", "freezing.epochs=9", *stop))
    before = (tmp_path / "run/metrics.csv").read_text()
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    train(config(f"resume={tmp_path / 'run'}"))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    assert (tmp_path / "run/metrics.csv").read_text() == before


def test_without_a_test_split_the_results_are_those_of_the_best_epoch(config: Config, tmp_path: Path) -> None:
    never_better = ("monitor.metric=plan/phase", "monitor.mode=max", "refit=off")
    metrics = train(config(*TINY, "freezing=full", "freezing.epochs=3", "data.test_fraction=0", *never_better))
    run = tmp_path / "run"
    results = json.loads((run / "metrics.json").read_text())
    first, *_, last = [row for row in read_rows(run / "metrics.csv") if row["loss/val"]]
    assert (results["epoch"], first["epoch"], last["epoch"]) == (0, "0", "2")
    assert results["metrics"] == metrics
    for name in ("loss/val", "accuracy/val"):
        assert metrics[name] == pytest.approx(float(first[name]))
    assert metrics["loss/val"] != pytest.approx(float(last["loss/val"]))
    assert not [name for name in metrics if name.startswith("lr-") or name.endswith("/test")]
    assert not (run / "confusion_test.csv").exists()


@pytest.mark.run
def test_checkpoints_may_lie_elsewhere(config: Config, tmp_path: Path) -> None:
    choices = (*TINY, "freezing=full", "freezing.epochs=3", "callbacks.checkpoint.every_minutes=0")
    whole, run = tmp_path / "whole", tmp_path / "run"
    metrics = train(config(*choices, f"run_folder={whole}", f"+callbacks.checkpoint.dirpath={tmp_path}/kept/whole"))
    best = Path(json.loads((whole / "metrics.json").read_text())["best_checkpoint"])
    assert best.parent == tmp_path / "kept/whole"
    assert best.is_file()
    assert evaluate(config(f"run={whole}", name="evaluate")).items() <= metrics.items()
    with killed(1, 2):
        train(config(*choices, f"+callbacks.checkpoint.dirpath={tmp_path}/kept/run"))
    assert train(config(f"resume={run}", "trust=true")) == metrics
    assert_same(load_file(run / "weights.safetensors"), load_file(whole / "weights.safetensors"))
    assert not [*whole.rglob("*.ckpt"), *run.rglob("*.ckpt")]
