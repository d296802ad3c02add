"""Averages of weights."""

from collections.abc import Callable

import torch
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY
from thaw.config import trainers
from thaw.config.assemble import assemble
from thaw.training.averaging import between, changed_statistics, renew_statistics
from thaw.types import BatchRequest

Config = Callable[..., DictConfig]


def test_averages_are_of_numbers_and_counters_are_the_later_ones() -> None:
    first = {"w": torch.tensor([0.0, 1.0]), "steps": torch.tensor(3), "own": torch.ones(1)}
    second = {"w": torch.tensor([1.0, 1.0]), "steps": torch.tensor(5)}
    found = between(first, second, 0.25)
    assert found["w"].tolist() == [0.25, 1.0]
    assert (found["steps"], found["own"]) == (5, 1)


def test_statistics_are_estimated_anew_where_they_were_averaged(config: Config) -> None:
    cfg = config(*TINY, *NOISE, "data.batch_size=64")
    parts = assemble(cfg)
    data, module = parts.samples, parts.module
    trainer = trainers.trainer_without_logs(cfg)
    trainer.validate(module, datamodule=data, verbose=False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stem = "network.backbone.stem.1"
    changed = {**before, f"{stem}.running_mean": before[f"{stem}.running_mean"] + 1}
    assert changed_statistics(module, before, changed) == {stem}

    module.load_state_dict(changed)
    unused = torch.nn.BatchNorm1d(3)
    unused.running_mean = torch.ones(3)
    module.unused = unused
    renew_statistics(trainer, module, data, [stem, "unused"])
    assert unused.running_mean.tolist() == [1.0] * 3, "no sample comes there"
    after = module.state_dict()
    (batch,) = data.raw_loader("train", [BatchRequest(data.parts["train"].tolist(), None)])
    activations = module.get_submodule("network.backbone.stem.0")(trainer.strategy.batch_to_device(batch).inputs)
    assert torch.allclose(after[f"{stem}.running_mean"], activations.mean((0, 2, 3)), atol=1e-5)
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith(stem))
    assert module.get_submodule(stem).momentum == 0.1
    assert not any(part.training for part in module.modules())


def test_no_batch_of_one_sample_is_normalised(config: Config) -> None:
    cfg = config(*TINY, *NOISE, "data.batch_size=41")  # one of the 42 samples is left over
    parts = assemble(cfg)
    trainer = trainers.trainer_without_logs(cfg)
    trainer.validate(parts.module, datamodule=parts.samples, verbose=False)
    renew_statistics(trainer, parts.module, parts.samples, ["network.backbone.layer2.0.1"])
