"""Runs that are made up, through `train` and a few interruptions: what holds for all of them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase as Looking
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor

from tests.conftest import NOISE, TINY, watched
from tests.test_train import assert_same
from thaw.storage import CACHE_VARIABLE
from thaw.train import train
from thaw.types import Batch, BatchRequest

FILLED = ("conv", "conv norm", "conv dropout", "conv norm dropout", "norm", "dropout conv statistics conv")
SAMPLES = 42
"""That train, see NOISE."""
EMPTY = ("dropout", "statistics", "")
"""Without parameters: they belong to the stage before them, or to the first."""


class Point(NamedTuple):
    """A batch of a run."""

    epoch: int
    batch: int = 0


@dataclass(frozen=True)
class Phase:
    """Without patterns."""

    epochs: int
    stages: frozenset[str]
    last: str
    """End of the names of the parameters that train in these stages."""
    lr_scale: float

    @property
    def train(self) -> list[str]:
        """As patterns."""
        return [f"{stage}.*{self.last}" if self.last else stage for stage in sorted(self.stages)]


@dataclass(frozen=True)
class Case:
    kinds: list[str]
    """What the parts of the backbone are made of, see tests.tiny.made_up. Those with parameters are its stages."""
    phases: list[Phase]
    overrides: list[str]
    interruptions: list[Point]
    """Batches before which the run is ended, and then resumed."""
    elsewhere: bool
    """Whether what was kept of frozen stages is gone when the run is resumed."""
    stray: bool
    """Whether something calls `.train()`, which would wake frozen BatchNorm and dropout."""

    def trains(self, epoch: int, stage: str, name: str = "") -> bool:
        """Whether a stage trains, or in it the parameter of that name."""
        phase = [phase for phase in self.phases for _ in range(phase.epochs)][epoch]
        return stage in phase.stages and (not name or name.endswith(phase.last))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kinds = draw(st.lists(st.sampled_from([*FILLED, *EMPTY]), min_size=1, max_size=4).filter(set(FILLED).intersection))
    kinds = draw(st.sampled_from([[*kinds, "pool"], [*kinds[:-1], f"{kinds[-1]} pool"]]))
    stages = [f"stage{number}" for number, kind in enumerate(kinds) if {"conv", "norm"} & {*kind.split()}]
    trained = st.frozensets(st.sampled_from([*stages, "head"]), min_size=1)
    lasts, scales = st.sampled_from(["", ".weight", ".bias"]), st.sampled_from([1.0, 0.5])
    phases = draw(st.lists(st.builds(Phase, st.integers(1, 2), trained, lasts, scales), min_size=1, max_size=2))
    phases += draw(st.sampled_from([[], phases[:1]]))  # once more
    batch_size = draw(st.sampled_from([9, 16, 42]))
    points = st.builds(
        Point, st.integers(0, sum(phase.epochs for phase in phases)), st.integers(0, -(-SAMPLES // batch_size) - 1)
    )
    return Case(
        kinds,
        phases,
        [
            f"callbacks={draw(st.sampled_from(['default', 'ema']))}",
            f"optimizer={draw(st.sampled_from(['adamw', 'sgd']))}",
            f"schedule={draw(st.sampled_from(['constant', 'warmup_cosine', 'one_cycle']))}",
            f"mixing={draw(st.sampled_from(['none', 'mixup']))}",
            f"caching={draw(st.sampled_from(['on', 'off']))}",
            f"head.dropout={draw(st.sampled_from([0.0, 0.2]))}",
            f"data.batch_size={batch_size}",
            f"trainer.accumulate_grad_batches={draw(st.integers(1, 3))}",
            f"trainer.gradient_clip_val={draw(st.sampled_from(['null', '0.5']))}",
            f"seed={draw(st.integers(0, 99))}",
        ],
        sorted(draw(st.sets(points, max_size=2))),
        draw(st.booleans()),
        draw(st.booleans()),
    )


class Watch(Callback):
    """Looks at every batch of a run; ends it before the batch `until`."""

    def __init__(self, case: Case, until: Point | None = None):
        self.case, self.until = case, until
        self.before: dict[str, Tensor] = {}
        self.shown: dict[Point, list[int]] = {}
        self.steps, self.moving = 0, set[str]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.until:
            raise InterruptedError
        now = state(pl_module)
        if self.shown:
            assert_same(now, self.before)  # nothing changes between batches
        self.before, self.steps = now, trainer.global_step
        if batch.start:  # a phase may begin behind the same stages as an earlier one, that have changed since
            data = trainer.datamodule.data
            x = data.on_after_batch_transfer(data.dataset()[BatchRequest(batch.index.tolist(), batch.view)], 0).inputs
            entered = list(pl_module.network.stages)[batch.start]
            with torch.no_grad():
                for name, part in pl_module.network.backbone.named_children():
                    if name == entered:
                        break
                    x = part(x)
            assert torch.allclose(batch.inputs, x, atol=1e-5)
        if self.case.stray:
            pl_module.train()
        self.shown[Point(trainer.current_epoch, batch_idx)] = batch.index.tolist()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.moving = set()
        rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for stage, name, parameter in parameters(pl_module):
            if self.case.trains(trainer.current_epoch, stage, name):
                assert parameter.requires_grad, name
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name
                if rates[parameter] * parameter.grad.abs().max() > 1e-6:  # below that, floats may not show it
                    self.moving.add(name)
            else:
                assert not parameter.requires_grad, name
                assert parameter.grad is None, name

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        now, (optimizer,), epoch = state(pl_module), trainer.optimizers, trainer.current_epoch
        frozen = {name for stage, name, _ in parameters(pl_module) if not self.case.trains(epoch, stage, name)}
        for name, value in now.items():
            stands_still = name in frozen or not self.case.trains(epoch, name.split("/")[0])
            assert not stands_still or torch.equal(value, self.before[name]), f"{name} is frozen"
        network = pl_module.network
        for name, stage in network.stages.items():
            modules = [part for path in stage.modules for part in network.get_submodule(path).modules()]
            assert all(part.training == self.case.trains(epoch, name) for part in modules), name
        if trainer.global_step > self.steps:
            for name in self.moving:
                assert not torch.equal(now[name], self.before[name]), f"{name} is trained"
            assert {*optimizer.state} == {
                parameter
                for stage, name, parameter in parameters(pl_module)
                if any(self.case.trains(past, stage, name) for past in range(epoch + 1))
            }
        self.before = now


def state(module: LightningModule) -> dict[str, Tensor]:
    """By stage/name."""
    tensors = module.network.stage_tensors()
    return {f"{stage}/{name}": value.clone() for stage, content in tensors.items() for name, value in content.items()}


def parameters(module: LightningModule) -> list[tuple[str, str, torch.nn.Parameter]]:
    """(stage, stage/name, parameter)."""
    named = module.network.stage_parameters()
    return [(stage, f"{stage}/{name}", p) for stage, content in named.items() for name, p in content.items()]


def written(run: Path) -> tuple[dict[str, Any], list[str]]:
    """The last checkpoint, and all that was logged."""
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint, sorted((run / "metrics.csv").read_text().splitlines())


@given(case=cases())
@settings(max_examples=settings().max_examples // 40, phases=(Looking.generate,))  # to shrink one takes minutes
def test_any_run_leaves_what_is_frozen_trains_the_rest_and_ends_the_same_after_interruptions(
    case: Case, config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    for folder in (whole, interrupted, tmp_path / "elsewhere"):
        shutil.rmtree(folder, ignore_errors=True)

    def choices(run: Path) -> DictConfig:
        cfg = config(
            *case.overrides[:1],
            *TINY,
            *NOISE,
            *case.overrides[1:],
            "backbone._target_=tests.tiny.made_up",
            "+backbone.kinds=[" + ",".join(f"'{kind}'" for kind in case.kinds) + "]",
            "freezing=phases",
            "callbacks.early_stopping=null",
            "callbacks.checkpoint.last_every_seconds=0",
            "callbacks.checkpoint.every_minutes=0",
            f"run_folder={run}",
        )
        cfg.freezing.phases = [
            {"epochs": phase.epochs, "train": phase.train, "lr_scale": phase.lr_scale} for phase in case.phases
        ]
        return cfg

    watch = Watch(case)
    with watched(watch):
        metrics = train(choices(whole))
    total = sum(phase.epochs for phase in case.phases)
    for epoch in range(total):
        shown = [index for point, indices in watch.shown.items() if point.epoch == epoch for index in indices]
        assert len(shown) == len({*shown}) == SAMPLES

    shown_again: dict[Point, list[int]] = {}
    cfg = choices(interrupted)
    for until in [*case.interruptions, None]:
        if until is not None and until.epoch >= total:  # it came to its end, and is resumed all the same
            until = None
        watch = Watch(case, until)
        with watched(watch), monkeypatch.context() as patch:
            if case.elsewhere and shown_again:
                patch.setenv(CACHE_VARIABLE, str(tmp_path / "elsewhere"))
            if until is None:
                assert train(cfg) == metrics
            else:
                with pytest.raises(InterruptedError):
                    train(cfg)
        shown_again |= watch.shown
        if [*interrupted.glob("checkpoints/*.ckpt")]:
            cfg = config(f"resume={interrupted}")
    for one, other in zip(written(whole), written(interrupted), strict=True):
        assert_same(other, one)
