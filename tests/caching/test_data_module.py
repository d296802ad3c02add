"""Whole runs with and without the cache: where batches enter the network changes no number."""

import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch.utils.data import Dataset

from tests.caching.whole_runs import NONE_STOPS, PLANS, Config, choices, logged
from tests.conftest import NOISE, TINY
from thaw.caching.store import entries, prune
from thaw.config.assemble import start
from thaw.data.image_module import ImageDataModule
from thaw.runs import record
from thaw.train import train
from thaw.types import Batch, BatchRequest


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", ["digits", "photographs", "bert", "llama", "gru"])
def test_the_same_run_with_and_without(
    kind: str, plan: str, config: Config, tmp_path: Path, cache_folder: Path
) -> None:
    same = [*choices(kind, tmp_path), *PLANS[plan], *NONE_STOPS]
    if kind == "photographs":
        same.append("data.views=2")
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    ours, plain = logged(tmp_path / "with"), logged(tmp_path / "without")
    assert ours == pytest.approx(plain, abs=1e-5)
    assert entries(cache_folder)


@pytest.mark.parametrize("plan", ["gradual", pytest.param("chain_thaw", marks=pytest.mark.run)])
def test_averaged_weights_are_validated_by_themselves(plan: str, config: Config, tmp_path: Path) -> None:
    # What was trained and is frozen again still moves in the average.
    longer = "freezing.epochs_per_stage=2"
    same = [*TINY, *PLANS[plan], longer, *NONE_STOPS, "callbacks=ema", "callbacks.ema.decay=0.9"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def test_batches_enter_no_later_than_the_first_stage_that_trains_in_part(config: Config) -> None:
    parts = ("head", "head, layer2.layer2.0.1.norm.weight", "layer1.*.bias", "'*.bias'")
    phases = ", ".join(f"{{epochs: 1, train: [{part}]}}" for part in parts)
    _, run, trainer = start(config(*TINY, "freezing=phases", f"freezing.phases=[{phases}]"))
    entered: dict[int, int] = {}
    step = run.module.training_step

    def noted(batch: Batch, batch_idx: int) -> torch.Tensor:
        entered[run.module.current_epoch] = batch.start
        return step(batch, batch_idx)

    run.module.training_step = noted  # type: ignore[method-assign]
    trainer.fit(run.module, run.loaders())
    assert entered == {0: 3, 1: 2, 2: 1, 3: 0}


def test_views_come_round_and_differ(
    config: Config, tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(*choices("photographs", tmp_path), *PLANS["head_only"], "data.views=3", "freezing.epochs=5")
    with caplog.at_level(logging.INFO):
        shown = dict(enumerate(_training_epochs(cfg, 5)))
    assert (
        "phase 1: 5 epochs at rate x 1, reads cached outputs of layer2 for 3 versions of each image in turn"
        in caplog.text
    )
    assert torch.equal(shown[0], shown[3])
    assert torch.equal(shown[1], shown[4])
    assert not any(torch.equal(shown[one], shown[other]) for one, other in ((0, 1), (1, 2), (0, 2)))
    assert sorted(str(entry.about["samples"]) for entry in entries(cache_folder)) == [
        "16 train",
        "16 train, view 1",
        "16 train, view 2",
        "4 val",
    ]


class Soft:
    """The batches of `dataset`, with class probabilities (B, C) as targets in place of class indices."""

    def __init__(self, dataset: Dataset[Batch], known: str):
        self.dataset = dataset
        self.probabilities = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
        if known != "by no attribute":
            self.targets = self.probabilities if known == "by an attribute" else torch.arange(60) % 3

    def __getitem__(self, request: BatchRequest) -> Batch:
        return self.dataset[request]._replace(target=self.probabilities[request.indices])


@pytest.mark.parametrize("known", ["by an attribute", "by no attribute", "wrongly"])
def test_cached_batches_have_the_targets_that_the_data_give(
    known: str, config: Config, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ImageDataModule.dataset
    monkeypatch.setattr(ImageDataModule, "dataset", lambda data, split=None: Soft(plain(data, split), known))
    same = [*TINY, *NOISE, *PLANS["probe_then_full"], *NONE_STOPS]
    train(config(*same, f"run_folder={tmp_path}/with"))
    assert bool(entries(cache_folder)) == (known == "by an attribute"), "else they are unknown"
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def _training_epochs(cfg: DictConfig, epochs: int) -> Iterator[torch.Tensor]:
    """The features of the training samples in each epoch, in the order of the samples."""
    _, parts, trainer = start(cfg)
    seen: list[list[Batch]] = [[] for _ in range(epochs)]
    step = parts.module.training_step

    def noted(batch: Batch, batch_idx: int) -> torch.Tensor:
        seen[parts.module.current_epoch].append(batch)
        return step(batch, batch_idx)

    parts.module.training_step = noted  # type: ignore[method-assign]
    trainer.fit(parts.module, parts.loaders())
    for batches in seen:
        assert all(batch.start == 3 for batch in batches)
        index = torch.cat([batch.index for batch in batches])
        yield torch.cat([batch.inputs for batch in batches])[index.argsort()]  # type: ignore[misc]


def test_feature_maps_are_kept_inside_the_budget_only(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    train(config(*TINY, *PLANS["gradual"], "caching.budget_gb=0"))
    assert {entry.about["what"] for entry in entries(cache_folder)} == {"output of layer2"}  # of features, always
    # A stem gives 8 x 4 x 4 floats, of 200 and of 270 samples: 0.24 MB. A layer1 gives a quarter of that.
    train(config(*TINY, *PLANS["gradual"], "caching.budget_gb=1.5e-4", f"run_folder={tmp_path}/more"))
    assert {entry.about["what"] for entry in entries(cache_folder)} == {"output of layer1", "output of layer2"}


@pytest.mark.parametrize("mixing", ["cutmix", "mixup"])
def test_pixels_are_mixed(mixing: str, config: Config, tmp_path: Path, cache_folder: Path) -> None:
    same = [*TINY, *PLANS["head_only"], f"mixing={mixing}", "refit=off"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    assert {str(entry.about["samples"]) for entry in entries(cache_folder)} == {"270 val", "270 test"}
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def test_a_few_batches_are_not_worth_it(config: Config, cache_folder: Path) -> None:
    train(config(*TINY, "debug=fast_dev_run"))
    train(config(*TINY, *PLANS["head_only"], "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=0.5"))
    assert {str(entry.about["samples"]) for entry in entries(cache_folder)} == {"270 test"}


@pytest.mark.parametrize(
    "precision", ["bf16-true", *(pytest.param(other, marks=pytest.mark.run) for other in ("64-true", "bf16-mixed"))]
)
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
        "data.views=2",
    ]
    train(config(*same, f"run_folder={tmp_path}/alone"))
    prune(cache_folder, 0)
    left: list[int] = []
    monkeypatch.setattr(record, "load_best", lambda *_: left.append(len(multiprocessing.active_children())))
    train(config(*same, "data.num_workers=2", f"run_folder={tmp_path}/processes"))
    assert logged(tmp_path / "processes") == pytest.approx(logged(tmp_path / "alone"), abs=1e-5)
    assert left == [0]
