"""Decoded images that are kept change the speed and no batch."""

import errno
import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from tests.conftest import TINY
from tests.data.zoo import odd_images
from tests.photos import photos
from thaw.caching.decoded import decode_split
from thaw.caching.store import Store, entries, prune
from thaw.check import check
from thaw.config.assemble import split_data
from thaw.data import image_files
from thaw.data.image_module import ImageDataModule
from thaw.data.loader import default_workers
from thaw.train import train
from thaw.types import BatchRequest, ImageSpec

Config = Callable[..., DictConfig]
Make = Callable[..., ImageDataModule]

SPEC = ImageSpec(20, 3, (0.5,) * 3, (0.5,) * 3, "bilinear", 0.8)
"""Evaluation resizes to 25 pixels; what is larger than 50 is kept smaller for training."""
GREY = replace(SPEC, channels=1, mean=(0.5,), std=(0.5,))
LARGE, SMALL = (90, 70), (40, 30)


@pytest.fixture
def make(config: Config, tmp_path: Path) -> Make:
    """The data of tmp_path/photos, decoded=on."""

    def make(*choices: str, spec: ImageSpec = SPEC) -> ImageDataModule:
        root = f"data.root={tmp_path / 'photos'}"
        cfg = config("data=image_folder", root, "data.decoded=on", "data.num_workers=0", *choices)
        return ready(split_data(cfg), cfg, spec)

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded, but for the check at the start."""
    files: list[str] = []
    real = image_files.load_in_thread

    def load_in_thread(file: Path, max_value: int | None) -> Image.Image:
        files.append(f"{file.parent.name}/{file.name}")
        return real(file)

    monkeypatch.setattr(image_files, "load_in_thread", load_in_thread)
    return files


def ready(data: Any, cfg: DictConfig, spec: ImageSpec = SPEC) -> ImageDataModule:
    """Data whose loaders read decoded copies, as those of CachedDataModule do."""
    data.use_input_spec(spec)
    data.store = Store.of_machine(cfg.caching.budget_gb) if cfg.caching else None
    return data


def decode(data: Any, split: str) -> None:
    if data.keeps_decoded:
        decode_split(data, split, data.store)


def batches(data: ImageDataModule, split: str, epoch: int = 0) -> list[Tensor]:
    decode(data, split)
    loader: Any = getattr(data, f"{split}_dataloader")()
    loader.sampler.set_epoch(epoch)
    return [batch.inputs for batch in loader]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def kept(folder: Path) -> list[Path]:
    return list(folder.glob("decoded-*.arrays"))


def no_space(*_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "spec",
    [SPEC, GREY, replace(SPEC, squash=True), replace(GREY, squash=True), replace(SPEC, interpolation="bicubic")],
    ids=["colour", "grey", "squash", "grey squash", "bicubic"],
)
def test_images_as_in_evaluation_are_those_of_the_files(
    make: Make, tmp_path: Path, decoded: list[str], spec: ImageSpec
) -> None:
    odd_images(photos(tmp_path, size=LARGE) / "odd")  # turned by EXIF, transparent, a line ...
    plain, data = (make("data.augment=none", f"data.decoded={word}", spec=spec) for word in ("off", "on"))
    for split in ("train", "val", "test"):
        expected = batches(plain, split)
        assert same(batches(data, split), expected), split
        decoded.clear()
        assert same(batches(data, split), expected), split
        assert decoded == []


@pytest.mark.parametrize("augment", ["light", "strong"])
@pytest.mark.parametrize("spec", [SPEC, GREY], ids=["colour", "grey"])
def test_views_of_small_images_are_those_of_the_files(
    make: Make, tmp_path: Path, decoded: list[str], augment: str, spec: ImageSpec
) -> None:
    odd_images(photos(tmp_path, size=SMALL) / "odd")
    plain, data = (make(f"data.augment={augment}", f"data.decoded={word}", spec=spec) for word in ("off", "on"))
    for epoch in (0, 3):
        assert same(batches(plain, "train", epoch), batches(data, "train", epoch))
    decoded.clear()
    batches(data, "train", epoch=7)
    assert decoded == []


def test_views_of_large_images_are_of_smaller_ones(make: Make, tmp_path: Path, decoded: list[str]) -> None:
    photos(tmp_path, size=LARGE)
    data, again, plain = make(), make(), make("data.decoded=off")
    first = batches(data, "train", epoch=2)
    assert {batch.shape[1:] for batch in first} == {(3, 20, 20)}
    assert same(first, batches(again, "train", epoch=2))
    assert not same(first, batches(data, "train", epoch=3))
    decoded.clear()
    index = data.parts["train"][:5].tolist()
    views, evaluation = data.raw_loader("train", [BatchRequest(index, 2), BatchRequest(index, None)])
    assert len(decoded) == 5, "evaluation is of the files"
    assert torch.equal(evaluation.inputs, plain.dataset()[BatchRequest(index, None)].inputs)
    assert torch.equal(views.inputs, data.dataset()[BatchRequest(index, 2)].inputs), (
        "views are the same without what is kept"
    )
    near = (views.inputs.float() - plain.dataset()[BatchRequest(index, 2)].inputs.float()).abs().mean()
    assert 0 < near < 15, "the same parts of the image, resized twice"


def test_each_file_is_decoded_once_on_a_machine(make: Make, tmp_path: Path, decoded: list[str]) -> None:
    photos(tmp_path, size=LARGE)
    files = []
    for number in range(2):
        data = make()  # reads the first image, to see that it is one
        decoded.clear()
        for split in ("train", "val", "test", "train", "val"):
            batches(data, split, epoch=number)
        list(data.raw_loader("val", [BatchRequest(data.parts["val"].tolist(), None)]))
        files += decoded
    assert len(files) == len(set(files)) == 24


def test_a_changed_file_is_decoded_again(make: Make, tmp_path: Path, cache_folder: Path) -> None:
    photos(tmp_path, size=LARGE)
    before = batches(make(), "val")
    data = make()
    assert isinstance(data.source, image_files.ImageFiles)
    Image.new("RGB", LARGE, "white").save(data.source.files[data.parts["val"][0]])
    now = batches(make(), "val")
    assert not same(before, now)
    assert same(now, batches(make("data.decoded=off"), "val"))
    assert len(kept(cache_folder)) == 2


def test_forms_that_are_equal_are_kept_once(make: Make, tmp_path: Path, cache_folder: Path) -> None:
    photos(tmp_path, size=LARGE)
    for spec in (SPEC, replace(SPEC, mean=(0.1,) * 3), replace(SPEC, size_px=25, crop_ratio=1.0)):
        batches(make(spec=spec), "val")
    assert len(kept(cache_folder)) == 1
    batches(make(spec=replace(SPEC, size_px=24)), "val")
    assert len(kept(cache_folder)) == 2


@pytest.mark.parametrize("fault", ["budget", "disk"])
def test_without_room_every_epoch_decodes_and_shows_the_same(
    make: Make,
    tmp_path: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    photos(tmp_path, size=LARGE)
    data = make()
    expected = {split: batches(data, split) for split in ("val", "train")}
    prune(cache_folder, 0)
    if fault == "disk":
        monkeypatch.setattr(os, "posix_fallocate", no_space)
    poor = make("caching.budget_gb=16e-5" if fault == "budget" else "caching.budget_gb=1")
    with caplog.at_level(logging.WARNING):
        assert all(same(batches(poor, split), expected[split]) for split in expected)
        assert all(same(batches(poor, split), expected[split]) for split in expected)
    if fault == "disk":
        assert "No space left on device" in caplog.text
    else:
        # 4 x 25 x 32 x 3 bytes of val fit; 16 x 50 x 64 x 3 of train do not fit beside them.
        assert "decoded, the 16 train images take 0.000154 GB beside 9.68e-06 GB of other splits" in caplog.text
        assert caplog.text.count("more than caching.budget_gb=0.00016: they are decoded in each epoch") == 1
    assert not [entry for entry in entries(cache_folder) if "train" in entry.about.get("samples", "")]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.run)])
def test_loader_processes_read_what_is_kept(make: Make, tmp_path: Path, method: str) -> None:
    root = photos(tmp_path, size=LARGE)
    expected = batches(make(), "train", epoch=1)
    # A process that is spawned takes seconds to import what it needs.
    data = make(f"data.num_workers={min(2, default_workers()) if method == 'fork' else 1}")
    decode(data, "train")
    loader: Any = data.train_dataloader()
    loader.sampler.set_epoch(1)
    loader.raw.multiprocessing_context = method
    root.rename(tmp_path / "away")  # only what is kept can be read
    assert same([batch.inputs for batch in loader], expected)


def test_a_copy_carries_the_place_and_not_the_pixels(make: Make, tmp_path: Path, cache_folder: Path) -> None:
    photos(tmp_path, size=LARGE)
    data = make()
    decode(data, "train")
    key = BatchRequest(data.parts["train"].tolist(), 0)
    dataset = data.dataset("train")
    content = pickle.dumps(dataset)
    assert len(content) < entries(cache_folder)[-1].num_bytes / 10
    assert torch.equal(pickle.loads(content)[key].inputs, dataset[key].inputs)
    prune(cache_folder, 0)
    assert torch.equal(pickle.loads(content)[key].inputs, dataset[key].inputs), "from the files, where it is gone"


def test_data_sets_of_torchvision(config: Config, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = ("data=torchvision_dataset", "data.name=FakeData", "data.num_workers=0")
    options = "data.options={size: 40, num_classes: 2, image_size: [3, 60, 80]}"
    configs = [config(*choices, options, f"data.decoded={word}") for word in ("off", "on")]
    plain, data = (ready(split_data(cfg), cfg) for cfg in configs)
    first = batches(data, "train")
    assert same(batches(plain, "val"), batches(data, "val"))
    monkeypatch.setattr(type(data.source), "__getitem__", None)
    assert same(batches(data, "train"), first)
    assert len(kept(cache_folder)) == 2


def test_the_key_of_views_knows_of_it(make: Make, tmp_path: Path) -> None:
    photos(tmp_path)
    plain, data = make("data.decoded=off"), make()
    assert plain.recipe(0) != data.recipe(0)
    assert plain.recipe(None) == data.recipe(None)


def test_images_that_differ_where_evaluation_does_not_look_are_different() -> None:
    class Red:
        class_names = ("a", "b")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image = Image.new("RGB", (40, 20), "red")
            image.putpixel((0, 0), (255 * index, 0, 0))
            return image, index

    choices: dict[str, Any] = {
        **{"seed": 0, "batch_size": 2, "num_workers": 0, "shuffle": True, "balance": "none", "val_fraction": 0.5},
        **{"test_fraction": 0, "labels_per_class": None, "fold": None, "folds": 5},
    }
    assert len(set(ImageDataModule(Red(), **choices).contents(np.arange(2)))) == 2


def test_what_cannot_be_is_refused(config: Config, make: Make, tmp_path: Path) -> None:
    root = photos(tmp_path)
    with pytest.raises(ValueError, match=r"data.decoded=on keeps images.*type caching=on"):
        make("caching=off")
    with pytest.raises(ValueError, match=r"data.decoded is off or on, not 'maybe'"):
        make("data.decoded=maybe")
    assert make("data.decoded=true").keeps_decoded
    assert not make("data.decoded=false", "caching=off").keeps_decoded
    assert "3 classes" in check(config("data=image_folder", f"data.root={root}", "data.decoded=on", name="check"))


def test_a_run_is_the_same_with_and_without(config: Config, tmp_path: Path) -> None:
    quiet = [choice for choice in TINY if not choice.startswith("data.")]
    choices = ("data=image_folder", f"data.root={photos(tmp_path, size=LARGE)}", "data.num_workers=0")
    short = ("+backbone.channels=3", "data.augment=none", "freezing.probe_epochs=1", "freezing.epochs=3")
    plain, data = (
        train(config(*quiet, *choices, *short, f"data.decoded={word}", f"run_folder={tmp_path / word}"))
        for word in ("off", "on")
    )
    assert plain == data
