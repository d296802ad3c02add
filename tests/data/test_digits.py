from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from tests.tiny import backbone
from thaw.config.assemble import split_data
from thaw.data.module import DataModule
from thaw.types import ImageSpec

Config = Callable[..., DictConfig]


@pytest.fixture
def digits(config: Config) -> DataModule:
    data = split_data(config())
    data.use_input_spec(backbone().input_spec)
    return data


def test_facts_come_from_the_data(digits: DataModule) -> None:
    assert digits.class_names == [str(digit) for digit in range(10)]
    assert digits.num_classes == 10
    assert sum(digits.labels.counts(digits.train_indices)) == len(digits.train_indices) == 1257
    assert len(digits.splits.val) == len(digits.splits.test) == 270


def test_batches_hold_normalised_images_of_the_size_asked_for(digits: DataModule) -> None:
    raw = next(iter(digits.train_dataloader()))
    assert raw.inputs.dtype == torch.uint8
    batch = digits.on_after_batch_transfer(raw, 0)
    assert batch.inputs.shape == (len(batch.target), 1, 8, 8)
    assert batch.start == 0
    ink = batch.inputs * 0.35 + 0.3
    assert torch.allclose(ink.amin(), torch.tensor(0.0), atol=1e-6)
    assert torch.allclose(ink.amax(), torch.tensor(1.0), atol=1e-6)
    source = torch.from_numpy(digits.targets)[batch.index]
    assert torch.equal(batch.target, source)


def test_a_backbone_for_rgb_gets_three_equal_channels(digits: DataModule) -> None:
    digits.use_input_spec(ImageSpec(24, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    inputs = next(iter(digits.val_dataloader())).inputs
    assert inputs.shape[1:] == (3, 24, 24)
    assert torch.equal(inputs[:, 0], inputs[:, 2])


def test_workers_give_the_same_batches(config: Config, digits: DataModule) -> None:
    with_workers = split_data(config("data.num_workers=1"))
    with_workers.use_input_spec(backbone().input_spec)
    for one, other in zip(digits.val_dataloader(), with_workers.val_dataloader(), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.index, other.index)


def test_few_labels_and_folds(config: Config) -> None:
    few = split_data(config("data.labels_per_class=5"))
    assert few.labels.counts(few.train_indices) == [5] * 10
    folds = [split_data(config(f"data.fold={fold}")).splits.test for fold in range(5)]
    assert sum(len(test) for test in folds) == 1797
    with pytest.raises(ValueError, match="labels_per_class=500 is too large"):
        split_data(config("data.labels_per_class=500"))
