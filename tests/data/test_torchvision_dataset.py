"""Data sets of torchvision by name, on files that look like theirs."""

import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image
from torchvision import datasets

from thaw.config.assemble import split_data
from thaw.data.module import DataModule
from thaw.data.torchvision_dataset import TorchvisionDataset, _labels
from thaw.errors import UserError

Config = Callable[..., DictConfig]
Named = Callable[..., DataModule]


@pytest.fixture
def named(config: Config, tmp_path: Path) -> Named:
    def build_source(name: str, *choices: str) -> DataModule:
        return split_data(
            config(
                "data=torchvision_dataset", f"data.name={name}", f"data.root={tmp_path}", "data.num_workers=0", *choices
            )
        )

    return build_source


def test_one_in_one_piece_is_split_here(named: Named) -> None:
    data = named("FakeData", "data.options={size: 60, num_classes: 3, image_size: [3, 16, 16]}")
    assert data.class_names == ["0", "1", "2"]
    assert sum(sum(data.labels.counts(part)) for part in data.parts.values()) == 60
    assert data.image(7).size == (16, 16)


def test_one_with_train_and_test_keeps_them(named: Named, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for stem, count in (("train", 40), ("t10k", 20)):
        images = generator.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    data = named("MNIST", "data.val_fraction=0.25")
    assert data.class_names[3] == "3 - three"
    assert [sum(data.labels.counts(part)) for part in data.parts.values()] == [30, 10, 20]
    assert data.image(0).mode == "RGB"
    assert data.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def countries(root: Path) -> Path:
    """Country211 with three images of each of two countries in each split; gives one of its folders."""
    for split in ("train", "valid", "test"):
        for country in ("AD", "AE"):
            folder = root / "country211" / split / country
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.jpg")
    return folder


def test_one_with_named_splits_takes_those_it_has(named: Named, tmp_path: Path) -> None:
    countries(tmp_path)
    data = named("Country211")
    assert data.class_names == ["AD", "AE"]
    assert [data.labels.counts(part) for part in data.parts.values()] == [[3, 3]] * 3


def test_what_a_sample_is_depends_on_every_file(named: Named, tmp_path: Path) -> None:
    folder = countries(tmp_path)
    (folder / "circle").symlink_to(tmp_path)
    (folder / "nothing").symlink_to(tmp_path / "nowhere")
    everything = np.arange(18)
    first = named("Country211").contents(everything)
    assert len(set(first)) == 18
    assert named("Country211").contents(everything) == first
    assert named("Country211").contents(everything[3:5]) == first[3:5]
    Image.new("RGB", (8, 8), "red").save(folder / "0.jpg")
    changed = named("Country211").contents(everything)
    assert set(changed).isdisjoint(first)
    small, other = (
        named("FakeData", f"data.options={{size: 20, num_classes: 2, random_offset: {n}}}").contents(everything)
        for n in (0, 1)
    )
    assert set(small).isdisjoint(other)


def test_classes_of_one_name_stay_apart() -> None:
    class Cranes:
        targets, classes = (0, 1, 2, 1), ("crane", "crane", "dog")

        def __len__(self) -> int:
            return len(self.targets)

    assert _labels("Cranes", Cranes()) == ["crane (0)", "crane (1)", "dog", "crane (1)"]


@pytest.mark.parametrize(
    ("option", "error", "said"),
    [
        (
            "download: true",
            URLError("Name or service not known"),
            r"FakeData: <urlopen error Name .* data.root=<folder>",
        ),
        ("size: 0", ValueError("size is too small"), "^FakeData: size is too small$"),
        ("split: a", ValueError("Unknown value 'a' for argument split. Valid values are {x}."), "Valid values are {x}"),
    ],
)
def test_errors_of_the_class_are_meant_for_users(
    named: Named, monkeypatch: pytest.MonkeyPatch, option: str, error: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets.FakeData, "__init__", fail)
    with pytest.raises(UserError, match=said):
        named("FakeData", f"data.options={{{option}}}")


def test_unknown_absent_and_unsuitable_ones_are_met_with_what_to_do(named: Named) -> None:
    with pytest.raises(ValueError, match=r"no data set 'CIFAR11'. Similar names: CIFAR10"):
        named("CIFAR11")
    with pytest.raises(ValueError, match=r"CIFAR10: Dataset not found.*data.download=true"):
        named("CIFAR10")
    with pytest.raises(ValueError, match=r"FakeData: .*data.options=\{key: value\}"):
        named("FakeData", "data.options={colour: red}")


def test_a_data_set_that_loads_a_pickle_of_its_folder_is_not_offered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="torchvision has no data set 'LSUN'"):
        TorchvisionDataset("LSUN", str(tmp_path), download=False, options=None)
