"""The plan at work in Lightning's loop: what freezes, what stands still, what is logged."""

import csv
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from omegaconf import DictConfig

from tests.conftest import TINY, TWO_PROCESSES
from thaw.config.assemble import start
from thaw.distributed.sharded import require_fitting
from thaw.finetuning.callback import FreezingCallback
from thaw.finetuning.phase import Plan
from thaw.finetuning.table import stage_table
from thaw.training.ema import EMA
from thaw.training.module import FineTuningModule

Config = Callable[..., DictConfig]

CHAIN = ("freezing=chain_thaw", "freezing.epochs_per_stage=1")
BIASES = ("freezing=surgical", 'freezing.train=[head,"*.bias"]', "freezing.epochs=1")
NORMS = ("freezing=surgical", 'freezing.train=[head,"*norm*"]', "freezing.epochs=1")
PARTS = (
    "freezing=phases",
    "freezing.phases=["
    "{epochs: 1, train: [head, 'layer*.bias']}, "
    "{epochs: 1, train: [head, 'layer*.weight']}, "  # of the same stages the rest
    "{epochs: 1, train: ['!*norm*', '!layer1']}]",
)


def built(cfg: DictConfig, *watchers: Callback) -> tuple[Trainer, FineTuningModule, LightningDataModule, Plan]:
    _, parts, trainer = start(cfg)
    trainer.callbacks[-1:-1] = watchers  # after ours, before the checkpoints
    return trainer, parts.module, parts.loaders(), parts.plan


class Watch(Callback):
    """At every batch: what it changed, the modes of the modules of each stage, what has a state in the optimizer."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, set[str], dict[str, set[bool]], set[str]]] = []
        self.before: dict[str, torch.Tensor] = {}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = snapshot(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert changed(self.before, snapshot(pl_module)) == set(), "something changed outside a training batch"
        pl_module.train()  # a stray one, that would wake frozen BatchNorm and dropout

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        now = snapshot(pl_module)
        network, (optimizer,) = pl_module.network, trainer.optimizers
        modes = {
            name: {part.training for path in stage.modules for part in network.get_submodule(path).modules()}
            for name, stage in network.stages.items()
        }
        stateful = {network.addresses[name] for name, p in network.named_parameters() if p in optimizer.state}
        self.seen.append((trainer.current_epoch, changed(self.before, now), modes, stateful))
        self.before = now


def snapshot(module: LightningModule) -> dict[str, torch.Tensor]:
    """Parameters by address, buffers by stage/name."""
    return {
        module.network.addresses.get(name, f"{stage}/{name}"): value.clone()
        for stage, tensors in module.network.stage_tensors().items()
        for name, value in tensors.items()
    }


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("choices", [CHAIN, BIASES, NORMS, PARTS], ids=["stages", "biases", "norms", "parts"])
def test_what_is_frozen_stands_still_with_its_statistics_and_the_rest_moves(
    config: Config, choices: tuple[str, ...]
) -> None:
    watch = Watch()
    trainer, classifier, data, plan = built(config(*TINY, *choices, "schedule=constant"), watch)
    trainer.fit(classifier, data)
    assert [epoch for epoch, *_ in watch.seen] == [epoch for epoch in range(plan.total_epochs) for _ in range(4)]
    ever: set[str] = set()
    for epoch, moved, modes, stateful in watch.seen:
        trained = plan.trained(epoch)
        ever |= trained
        stages = {stage for stage, own in plan.stages.items() if not trained.isdisjoint(own)}
        statistics = {name for name in moved if "/" in name}
        assert moved - statistics == trained
        assert {name.split("/")[0] for name in statistics} == stages - {"head"}
        assert modes == {stage: {stage in stages} for stage in plan.stages}
        assert stateful == ever


def test_averaging_leaves_frozen_stages_as_they_are(config: Config, tmp_path: Path) -> None:
    choices = ("callbacks=ema", "freezing=surgical", "freezing.train=[layer2,head]", "freezing.epochs=2")
    trainer, classifier, data, _ = built(config(*choices, *TINY))
    before = snapshot(classifier)
    trainer.fit(classifier, data)
    assert {re.split("[./]", name)[0] for name in changed(before, snapshot(classifier))} == {"layer2", "head"}
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    name = "network.head.1.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])


def test_phase_trainable_parameters_and_every_rate_are_logged(config: Config, tmp_path: Path) -> None:
    trainer, classifier, data, plan = built(config(*TINY, *PARTS, "trainer.log_every_n_steps=1"))
    table = stage_table(classifier.network, plan, classifier.make_optimizer(classifier.network).param_groups)
    trainer.fit(classifier, data)
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    phases = [float(row["plan/phase"]) for row in rows if row["plan/phase"]]
    assert phases == [1, 2, 3]
    trainable = [float(row["plan/trainable_parameters"]) for row in rows if row["plan/trainable_parameters"]]
    told: Counter[str] = Counter()
    for line in table.splitlines():
        if line.startswith("│"):
            _, _, size, phases_of_stage, *_ = line.split("│")
            for phase in phases_of_stage.strip().split(", "):
                number, *part = phase.split(" (")
                told[number] += int((part[0].split()[0] if part else size).replace(",", ""))
    assert trainable == [told["1"], told["2"], told["3"]]
    rates = [row for row in rows if row["lr-AdamW/head/decay"]]
    assert [int(row["step"]) for row in rates] == list(range(12))
    for row in rates:
        assert float(row["lr-AdamW/stem/decay"]) == pytest.approx(0.8**3 * float(row["lr-AdamW/head/decay"]))


def test_the_epoch_of_a_resumed_run_counts_from_its_first_hook_on(config: Config) -> None:
    _, classifier, _, plan = built(config(*TINY, *CHAIN))
    freezing = FreezingCallback(plan)
    resumed = SimpleNamespace(current_epoch=2, strategy=None)  # inside an epoch: no on_train_epoch_start will come
    freezing.setup(resumed, classifier, "fit")  # type: ignore[arg-type]
    freezing.on_train_start(resumed, classifier)  # type: ignore[arg-type]
    network = classifier.network
    trained = {network.addresses[name] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == plan.trained(2) == set(network.stage_addresses()["layer1"])


def test_what_cannot_follow_a_plan_is_refused(config: Config, tmp_path: Path) -> None:
    swa = (
        "+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
        "+callbacks.swa.swa_lrs=0.1",
    )
    with pytest.raises(ValueError, match="take callbacks=ema"):
        built(config(*TINY, *swa))
    *_, plan = built(config(*TINY, *CHAIN, f"run_folder={tmp_path / 'another'}"))
    with pytest.raises(ValueError, match=r"FSDPStrategy.*a plan of 5 phases: take trainer.strategy=ddp"):
        require_fitting(SimpleNamespace(strategy=FSDPStrategy()), plan)  # type: ignore[arg-type]
    one_phase = Plan([plan.phases[-1]], plan.stages)
    asked: dict[str, Any] = {
        "gradient_clip_val": None,
        "callbacks": [],
        "fast_dev_run": False,
        "checkpoint_callback": 1,
    }
    for choice, message in (
        ({"strategy": ModelParallelStrategy()}, "take trainer=ddp or trainer=fsdp"),
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val=null"),
        ({"callbacks": [EMA(0.9)]}, "callbacks=ema"),
        ({"checkpoint_callback": None}, "this run keeps none"),
    ):
        trainer = SimpleNamespace(**{"strategy": FSDPStrategy(), **asked, **choice})
        with pytest.raises(ValueError, match=message):
            require_fitting(trainer, one_phase)  # type: ignore[arg-type]
    require_fitting(SimpleNamespace(strategy=FSDPStrategy(), **asked), one_phase)  # type: ignore[arg-type]


class Worse(Callback):
    """A loss that only rises."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("worse", float(trainer.current_epoch))


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (9, 6)])
def test_early_stopping_counts_in_the_last_phase_only(config: Config, patience: int, epochs: int) -> None:
    trainer, classifier, data, _ = built(
        config(
            *TINY,
            "freezing=phases",
            "freezing.phases=[{epochs: 2, train: [head]}, {epochs: 4, train: ['*']}]",
            f"callbacks.early_stopping.patience={patience}",
            "callbacks.early_stopping.monitor=worse",
            "callbacks.early_stopping.mode=min",
            "+callbacks.worse._target_=tests.finetuning.test_callback.Worse",
        )
    )
    trainer.fit(classifier, data)
    # Its first value in the last phase is the best so far, whatever came before; then it counts.
    assert trainer.current_epoch == min(epochs + 1, 6) or (patience == 1 and trainer.current_epoch == 4)


class Digest(Callback):
    """Every rank writes what its weights are after each epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = torch.cat([p.detach().flatten() for p in pl_module.network.parameters()])
        torch.save(parameters, self.folder / f"epoch{trainer.current_epoch}_rank{trainer.global_rank}.pt")


def test_two_processes_stay_in_step_through_every_phase(config: Config, tmp_path: Path) -> None:
    cfg = config(*TINY, *PARTS, *TWO_PROCESSES, "~callbacks.early_stopping")
    trainer, classifier, data, plan = built(cfg, Digest(tmp_path))
    trainer.fit(classifier, data)
    for epoch in range(plan.total_epochs):
        ranks = [torch.load(tmp_path / f"epoch{epoch}_rank{rank}.pt", weights_only=True) for rank in range(2)]
        assert torch.equal(*ranks), f"the ranks drifted apart in epoch {epoch}"
