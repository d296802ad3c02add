"""Whole runs with and without what is kept: the numbers are the same, and frozen work is done once."""

import csv
import errno
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from thaw.caching.outputs import Outputs

from tests.conftest import TINY
from tests.language import pretrained, texts
from tests.photos import photos
from thaw.caching.store import entries, prune
from thaw.config import build
from thaw.evaluate import evaluate
from thaw.models.weights import read_weights
from thaw.runs import record
from thaw.train import train
from thaw.types import Batch

Config = Callable[..., DictConfig]

QUIET = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
NONE_STOPS = ("callbacks.early_stopping=null",)
AGAIN = ("head", '"*"', "head")
"""The same stages are frozen twice, with other weights."""
PLANS = {
    "head_only": ("freezing=head_only", "freezing.epochs=3"),
    "probe_then_full": ("freezing=probe_then_full", "freezing.probe_epochs=2", "freezing.full_epochs=1"),
    "gradual": ("freezing=gradual", "freezing.epochs_per_stage=2"),
    "chain_thaw": ("freezing=chain_thaw", "freezing.epochs_per_stage=1"),
    "again": ("freezing=phases", "freezing.phases=[" + ",".join(f"{{epochs: 1, train: [{t}]}}" for t in AGAIN) + "]"),
}


def choices(kind: str, tmp_path: Path) -> list[str]:
    """Of data and of a network that suits them."""
    if kind == "digits":
        return list(TINY)
    if kind == "photographs":
        if not (tmp_path / "photos").exists():
            photos(tmp_path)
        coloured = ("backbone._target_=tests.tiny.backbone", "+backbone.channels=3", "backbone.weights=null")
        files = ("data=image_folder", f"data.root={tmp_path}/photos", "data.num_workers=0", "data.batch_size=5")
        return [*QUIET, *coloured, *files]
    if not (tmp_path / "reviews.csv").exists():
        texts(tmp_path)
    table = [*QUIET, "data=text_table", f"data.table={tmp_path}/reviews.csv", "data.batch_size=8"]
    if kind == "gru":
        return [*table, "backbone=gru", "backbone.hidden_size=8", "backbone.embedding_size=8"]
    if not (tmp_path / kind).exists():
        pretrained(tmp_path / kind, kind)
    return [*table, "backbone=huggingface", f"backbone.name={tmp_path}/{kind}"]


def logged(run: Path) -> dict[tuple[str, str], float]:
    """Every value of metrics.csv, by name and step."""
    with (run / "metrics.csv").open(newline="") as file:
        return {
            (name, row["step"]): float(value) for row in csv.DictReader(file) for name, value in row.items() if value
        }


class Forwards:
    """Batches that went through frozen stages to be kept, by (split, view)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count = 0
        run = Outputs.run

        def counted(outputs: Outputs, batch: Batch, end: int) -> Batch:
            self.count += 1
            return run(outputs, batch, end)

        monkeypatch.setattr(Outputs, "run", counted)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    return Forwards(monkeypatch)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", ["digits", "photographs", "bert", "llama", "gru"])
def test_the_same_run_with_and_without(
    kind: str, plan: str, config: Config, tmp_path: Path, cache_folder: Path
) -> None:
    same = [
        *choices(kind, tmp_path),
        *PLANS[plan],
        *NONE_STOPS,
        *(["data.augment=none"] if kind == "photographs" else []),
    ]
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    ours, plain = logged(tmp_path / "with"), logged(tmp_path / "without")
    assert ours == pytest.approx(plain, abs=1e-5)
    assert entries(cache_folder)


@pytest.mark.parametrize("plan", ["gradual", "chain_thaw"])
def test_averaged_weights_are_validated_by_themselves(plan: str, config: Config, tmp_path: Path) -> None:
    # What was trained and is frozen again still moves in the average.
    longer = "freezing.epochs_per_stage=2"
    same = [*TINY, *PLANS[plan], longer, *NONE_STOPS, "callbacks=ema", "callbacks.ema.decay=0.9"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def test_frozen_work_is_done_once(config: Config, tmp_path: Path, forwards: Forwards) -> None:
    head_only = [*TINY, *PLANS["head_only"], "caching.batch_size=100"]
    train(config(*head_only, f"run_folder={tmp_path}/first"))
    # 200 training samples, 270 of val and 270 of test: in three epochs, and for the test.
    assert forwards.count == 2 + 3 + 3
    train(config(*head_only, "optimizer.lr=1e-4", "freezing.epochs=5", f"run_folder={tmp_path}/second"))
    evaluate(config(f"run={tmp_path}/second", name="evaluate"))
    assert forwards.count == 2 + 3 + 3


def test_a_longer_prefix_goes_on_from_a_shorter_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    run = Outputs.run
    monkeypatch.setattr(Outputs, "run", lambda self, batch, end: entered.append(batch.start) or run(self, batch, end))
    train(config(*TINY, *PLANS["chain_thaw"]))
    assert set(entered) == {0, 1}  # layer2 alone is trained behind the stem, which was kept, and layer1


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "data.labels_per_class=19",
        "+backbone.dropout=0.3",
        "caching.batch_size=50",
        "trainer.precision=bf16-mixed",
    ],
)
def test_what_changes_the_numbers_is_computed_again(
    change: str, config: Config, tmp_path: Path, forwards: Forwards
) -> None:
    same = [*TINY, "freezing=head_only", "freezing.epochs=1"]
    train(config(*same, f"run_folder={tmp_path}/first"))
    before = forwards.count
    train(config(*same, change, f"run_folder={tmp_path}/second"))
    assert forwards.count > before


def test_views_come_round_and_differ(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    cfg = config(*choices("photographs", tmp_path), *PLANS["head_only"], "caching.views=2", "freezing.epochs=4")
    shown: dict[int, torch.Tensor] = {}
    for epoch, batch in enumerate(_training_epochs(cfg, 4)):
        shown[epoch] = batch
    assert torch.equal(shown[0], shown[2])
    assert torch.equal(shown[1], shown[3])
    assert not torch.equal(shown[0], shown[1])
    assert sorted(str(entry.about["samples"]) for entry in entries(cache_folder)) == [
        "16 train, view 0",
        "16 train, view 1",
        "4 val",
    ]


def _training_epochs(cfg: DictConfig, epochs: int) -> Iterator[torch.Tensor]:
    """The features of the training samples in each epoch, in the order of the samples."""
    data = build.data(cfg)
    backbone = build.backbone(cfg)
    data.use_input_spec(backbone.input_spec)
    network = build.network(cfg, backbone, data.num_classes)
    plan = build.plan(cfg, network)
    classifier = build.classifier(cfg, data, network, plan)
    data.prefix = build.frozen_prefix(cfg, data, classifier)
    seen: list[list[Batch]] = [[] for _ in range(epochs)]

    step = classifier.training_step

    def noted(batch: Batch, batch_idx: int) -> torch.Tensor:
        seen[classifier.current_epoch].append(batch)
        return step(batch, batch_idx)

    classifier.training_step = noted  # type: ignore[method-assign]
    from thaw.config.resume import open_run

    build.trainer(cfg, plan, open_run(cfg)[1]).fit(classifier, data)
    for batches in seen:
        assert all(batch.start == 3 for batch in batches)
        index = torch.cat([batch.index for batch in batches])
        yield torch.cat([batch.inputs for batch in batches])[index.argsort()]  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["photographs", "bert"])
def test_where_nothing_can_be_kept_the_run_goes_on_with_the_same_numbers(
    kind: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    same = [*choices(kind, tmp_path), *PLANS["gradual"], *NONE_STOPS, "caching.views=2"]
    train(config(*same, f"run_folder={tmp_path}/with"))

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "full"))
    with caplog.at_level(logging.WARNING):
        train(config(*same, f"run_folder={tmp_path}/without"))
    assert "No space left on device" in caplog.text
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


@pytest.mark.parametrize("lost", [False, True])
def test_a_resumed_run_ends_with_the_same_bits(lost: bool, config: Config, tmp_path: Path, cache_folder: Path) -> None:
    train(
        config(
            *choices("photographs", tmp_path),
            *PLANS["gradual"],
            *NONE_STOPS,
            "caching.views=2",
            "callbacks.checkpoint.save_top_k=-1",
        )
    )
    run = tmp_path / "run"
    weights, metrics = read_weights(run / "weights.safetensors"), (run / "metrics.csv").read_text()
    if lost:
        prune(cache_folder, 0)
    train(config(f"resume={next((run / 'checkpoints').glob('best-*epoch002.ckpt'))}"))
    again = read_weights(run / "weights.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    assert (run / "metrics.csv").read_text() == metrics


def test_feature_maps_are_kept_inside_the_budget_only(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    train(config(*TINY, *PLANS["gradual"], "caching.budget_gb=0"))
    assert {entry.about["what"] for entry in entries(cache_folder)} == {"output of layer2"}  # of features, always
    # A stem gives 8 x 4 x 4 floats, of 200 and of 270 samples: 0.24 MB. A layer1 gives a quarter of that.
    train(config(*TINY, *PLANS["gradual"], "caching.budget_gb=1.5e-4", f"run_folder={tmp_path}/more"))
    assert {entry.about["what"] for entry in entries(cache_folder)} == {"output of layer1", "output of layer2"}


def test_half_precision_takes_half_the_room(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    same = [*TINY, *PLANS["head_only"]]
    train(config(*same, f"run_folder={tmp_path}/whole"))
    whole = {entry.about["samples"]: entry.num_bytes for entry in entries(cache_folder)}
    prune(cache_folder, 0)
    train(config(*same, "caching.dtype=bfloat16", f"run_folder={tmp_path}/half"))
    half = {entry.about["samples"]: entry.num_bytes for entry in entries(cache_folder)}
    about_bytes = 1000  # and the headers of the arrays
    for samples, num_bytes in whole.items():
        assert half[samples] < num_bytes / 2 + about_bytes
    ours, plain = logged(tmp_path / "half"), logged(tmp_path / "whole")
    assert ours["loss/val", "11"] == pytest.approx(plain["loss/val", "11"], abs=0.02)
    assert ours != plain


def test_numbers_too_large_for_float16_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Outputs.run

    def large(outputs: Outputs, batch: Batch, end: int) -> Batch:
        batch = run(outputs, batch, end)
        return batch._replace(inputs=batch.inputs + 1e5)  # type: ignore[operator]

    monkeypatch.setattr(Outputs, "run", large)
    with pytest.raises(ValueError, match=r"numbers up to 65,504.*caching.dtype=bfloat16"):
        train(config(*TINY, *PLANS["head_only"], "caching.dtype=float16"))


def test_cutmix_is_of_pixels(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    same = [*TINY, *PLANS["head_only"], "mixing=cutmix"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    assert {str(entry.about["samples"]) for entry in entries(cache_folder)} == {"270 val", "270 test"}
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def test_mixup_is_of_features(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    metrics = train(config(*TINY, *PLANS["gradual"], "mixing=mixup"))
    assert metrics["accuracy/train"] > 0.1
    assert "200 train" in {entry.about["samples"] for entry in entries(cache_folder)}


def test_a_few_batches_are_not_worth_it(config: Config, cache_folder: Path) -> None:
    train(config(*TINY, "debug=fast_dev_run"))
    train(config(*TINY, *PLANS["head_only"], "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=0.5"))
    assert {str(entry.about["samples"]) for entry in entries(cache_folder)} == {"270 test"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("views=0", "caching.views is a whole number from 1 on, not 0. To keep nothing: caching=off"),
        ("views=1.5", "caching.views is a whole number"),
        ("dtype=int8", "caching.dtype is null, float32, float16, bfloat16, not int8"),
        ("budget_gb=-1", "caching.budget_gb is a number of gigabytes from 0 on, not -1"),
        ("batch_size=0", "caching.batch_size is a whole number from 1 on, not 0"),
    ],
)
def test_choices_that_cannot_be(choice: str, message: str, config: Config) -> None:
    with pytest.raises(ValueError, match=message):
        train(config(*TINY, f"caching.{choice}"))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_other_precisions(precision: str, config: Config, tmp_path: Path, cache_folder: Path) -> None:
    same = [*TINY, *PLANS["gradual"], *NONE_STOPS, f"trainer.precision={precision}"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    tolerance = 1e-9 if precision == "64-true" else 0.05
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=tolerance)
    assert len(entries(cache_folder)) == 6


def test_loader_processes_compute_the_same_and_end_with_training(
    config: Config, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [
        *choices("photographs", tmp_path),
        "data.test_fraction=0",
        *PLANS["probe_then_full"],
        *NONE_STOPS,
        "caching.views=2",
    ]
    train(config(*same, f"run_folder={tmp_path}/alone"))
    prune(cache_folder, 0)
    left: list[int] = []
    monkeypatch.setattr(record, "load_best", lambda *_: left.append(len(multiprocessing.active_children())))
    train(config(*same, "data.num_workers=2", f"run_folder={tmp_path}/processes"))
    assert logged(tmp_path / "processes") == pytest.approx(logged(tmp_path / "alone"), abs=1e-5)
    assert left == [0]


def test_views_are_made_anew_where_samples_have_other_numbers(
    config: Config, tmp_path: Path, forwards: Forwards
) -> None:
    root = photos(tmp_path)
    for split in ("test", "train", "val"):
        for colour in ("blue", "green", "red"):
            (root / split / colour).mkdir(parents=True)
    for number, file in enumerate(sorted(root.glob("*/*.png"))):
        split = ("train", "train", "val", "test")[number % 4]
        file.rename(root / split / file.parent.name / file.name)
    (root / "labels.csv").unlink()
    for folder in ("blue", "green", "red"):
        (root / folder).rmdir()
    same = [*choices("photographs", tmp_path), "freezing=head_only", "freezing.epochs=1", "caching.batch_size=100"]
    train(config(*same, "caching.views=2", f"run_folder={tmp_path}/first"))
    assert forwards.count == 3
    first = next((root / "test").rglob("*.png"))
    first.unlink()  # every training sample has another number now, and so another view
    train(config(*same, "caching.views=2", f"run_folder={tmp_path}/second"))
    assert forwards.count == 3 + 2  # not those of val, which are seen as they are
