"""Frozen stages are computed once for each sample and view, and anew where anything that they depend on changes."""

import errno
import logging
import os
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

from tests import tiny
from tests.caching.whole_runs import NONE_STOPS, PLANS, Config, Forwards, choices, logged
from tests.conftest import NOISE, TINY
from tests.photos import photos
from thaw.caching.entry import CacheEntry
from thaw.caching.prefix import FrozenPrefix
from thaw.caching.store import entries, prune
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.models.backbone import Backbone
from thaw.models.weights import read_weights
from thaw.storage import CACHE_VARIABLE
from thaw.train import train
from thaw.types import Batch


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    return Forwards(monkeypatch)


def test_frozen_work_is_done_once(config: Config, tmp_path: Path, forwards: Forwards) -> None:
    head_only = [*TINY, *PLANS["head_only"], "caching.batch_size=100"]
    train(config(*head_only, f"run_folder={tmp_path}/first"))
    # 200 training samples, 270 of val and 270 of test: in three epochs, and for the test.
    assert forwards.count == 2 + 3 + 3
    train(config(*head_only, "optimizer.lr=1e-4", "freezing.epochs=5", f"run_folder={tmp_path}/second"))
    evaluate(config(f"run={tmp_path}/second", name="evaluate"))
    assert forwards.count == 2 + 3 + 3


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


@pytest.mark.parametrize("kind", ["photographs", "bert"])
def test_where_nothing_can_be_kept_the_run_goes_on_with_the_same_numbers(
    kind: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    views = ["data.views=2"] if kind == "photographs" else []
    same = [*choices(kind, tmp_path), *PLANS["gradual"], *NONE_STOPS, *views]
    train(config(*same, f"run_folder={tmp_path}/with"))

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "full"))
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
            "data.views=2",
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
    run = FrozenPrefix.run

    def large(prefix: FrozenPrefix, batch: Batch, start: int) -> Batch:
        batch = run(prefix, batch, start)
        return batch._replace(inputs=batch.inputs + 1e5)  # type: ignore[operator]

    monkeypatch.setattr(FrozenPrefix, "run", large)
    with pytest.raises(UserError, match=r"numbers up to 65,504.*caching.dtype=bfloat16"):
        train(config(*TINY, *PLANS["head_only"], "caching.dtype=float16"))


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
    same = [
        *choices("photographs", tmp_path),
        "freezing=head_only",
        "freezing.epochs=2",
        "caching.batch_size=100",
        "refit=off",
    ]
    train(config(*same, "data.views=2", f"run_folder={tmp_path}/first"))
    assert forwards.count == 4
    first = next((root / "test").rglob("*.png"))
    first.unlink()  # every training sample has another number now, and so another view
    train(config(*same, "data.views=2", f"run_folder={tmp_path}/second"))
    assert forwards.count == 4 + 2  # not what is seen as it is, which are those of val and the first version


class Unknown:
    """Holds a value where nothing can see it."""

    __slots__ = ("_values",)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("it cannot be taken apart")


def undigestible(what: str, weights: None = None) -> Backbone:
    made = tiny.backbone()
    made.network.layer1.beside = Lock() if what == "lock" else Unknown()  # type: ignore[union-attr]
    return made


@pytest.mark.parametrize("what", ["lock", "slots"])
def test_a_network_with_something_that_has_no_digest_trains_with_a_warning_and_is_not_kept(
    what: str, config: Config, tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = ("backbone._target_=tests.caching.test_prefix.undigestible", f"+backbone.what={what}")
    same = [*TINY, *NOISE, *PLANS["head_only"], *NONE_STOPS]
    with caplog.at_level(logging.WARNING):
        train(config(*same, *target, f"run_folder={tmp_path}/with"))
    kind = "_thread.lock" if what == "lock" else "tests.caching.test_prefix.Unknown"
    assert f"network.layer1.beside holds a {kind}" in caplog.text
    assert entries(cache_folder) == []
    train(config(*same, f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)


def test_each_view_has_a_key_of_its_own(config: Config, tmp_path: Path, cache_folder: Path, forwards: Forwards) -> None:
    same = [
        *TINY,
        *NOISE,
        "data.augment=light",
        "freezing=head_only",
        "freezing.epochs=4",
        *NONE_STOPS,
        "data.views=2",
        "refit=off",
    ]
    train(config(*same, f"run_folder={tmp_path}/first"))
    described = sorted(str(entry.about["samples"]) for entry in entries(cache_folder))
    assert described == ["42 train", "42 train, view 1", "9 test", "9 val"]
    views = [entry for entry in entries(cache_folder) if "train" in entry.about["samples"]]
    first, second = (CacheEntry.open(entry.path).arrays["output"] for entry in views)
    assert not torch.equal(first, second)
    before = forwards.count
    train(config(*same, f"run_folder={tmp_path}/again"))
    assert forwards.count == before


class Named(tiny.Noise):
    """Says what its samples are, so that none is read for the key of the cache."""

    version = "1"


class Inverted(Named):
    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels, label = super().__getitem__(index)
        return 255 - pixels, label


def test_activations_of_another_source_are_not_taken(config: Config, tmp_path: Path, cache_folder: Path) -> None:
    for number, source in enumerate(("Named", "Inverted", "Named")):
        data = (f"data._target_=tests.caching.test_prefix.{source}", "data.labels_per_class=null")
        train(config(*TINY, *data, *PLANS["head_only"], f"run_folder={tmp_path}/{number}"))
    assert len(entries(cache_folder)) == 2 * 3, "of train, val and test"
    assert logged(tmp_path / "0") == logged(tmp_path / "2") != logged(tmp_path / "1")
