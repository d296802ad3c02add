"""Two processes: in step with each other to the last bit, and with one process that has the whole batch."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from omegaconf import DictConfig
from torch import Tensor

from tests.conftest import TINY, TWO_PROCESSES
from tests.finetuning.test_callback import CHAIN, built
from thaw.distributed.agree import Failure, first_failure

Config = Callable[..., DictConfig]

SMOOTH = [*(choice for choice in TINY if "_target_" not in choice), "backbone._target_=tests.tiny.smooth"]
ALL_EPOCHS = ("callbacks.early_stopping=null",)


class States(Callback):
    """Every process writes what its network (and the average of it) and its metrics are after each epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averages = [c._average_model.module for c in trainer.callbacks if isinstance(c, WeightAveraging)]  # type: ignore
        state = {f"average.{name}": value for a in averages for name, value in a.network.state_dict().items()}
        state |= pl_module.network.state_dict() | {k: v.clone() for k, v in trainer.callback_metrics.items()}
        self.folder.mkdir(exist_ok=True)
        torch.save(state, self.folder / f"{trainer.global_rank}_{trainer.current_epoch}.pt")


def states(folder: Path, rank: int) -> list[dict[str, Tensor]]:
    """Of each epoch."""
    return [
        torch.load(folder / f"{rank}_{epoch}.pt", weights_only=True) for epoch in range(len(list(folder.glob("0_*"))))
    ]


def trained(cfg: DictConfig, folder: Path) -> None:
    torch.manual_seed(cfg.seed)
    trainer, classifier, data, _ = built(cfg, States(folder))
    trainer.fit(classifier, data)


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    names = [name for name in one if not name.startswith(("plan/", "average."))]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in names)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param((), id="default"),
        pytest.param(("callbacks=ema",), id="ema", marks=pytest.mark.run),
        # DDP hands buffers round before it validates, too.
        pytest.param(("+trainer.limit_val_batches=0", "callbacks.checkpoint=null"), id="no validation"),
    ],
)
def test_two_processes_are_equal_to_the_last_bit_after_each_epoch(
    config: Config, tmp_path: Path, choices: tuple[str, ...]
) -> None:
    trained(config(*choices, *TINY, *CHAIN, *TWO_PROCESSES, *ALL_EPOCHS), tmp_path / "two")
    one, other = states(tmp_path / "two", 0), states(tmp_path / "two", 1)
    assert len(one) == 5
    for epoch, (ours, theirs) in enumerate(zip(one, other, strict=True)):
        different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
        assert not different, f"epoch {epoch}"
    assert any(name.startswith("average.") for name in one[0]) == ("callbacks=ema" in choices)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(("data.labels_per_class=7", "data.global_batch_size=32"), id="uneven"),
        pytest.param(
            ("trainer.accumulate_grad_batches=2", "data.global_batch_size=26", "caching=off"),
            id="accumulated",
            marks=pytest.mark.run,
        ),
        pytest.param(
            ("task.class_weights=[1,2,3,4,5,6,7,8,9,10]", "data.global_batch_size=66"),
            id="class weights",
            marks=pytest.mark.run,
        ),
    ],
)
def test_two_processes_make_of_a_batch_what_one_does(config: Config, tmp_path: Path, choices: tuple[str, ...]) -> None:
    same = (*SMOOTH, *CHAIN, *ALL_EPOCHS, *choices)
    trained(config(*same, f"run_folder={tmp_path}/run1"), tmp_path / "one")
    trained(config(*same, *TWO_PROCESSES, f"run_folder={tmp_path}/run2"), tmp_path / "two")
    for one, two in zip(states(tmp_path / "one", 0), states(tmp_path / "two", 0), strict=True):
        assert farthest(one, two) <= 1e-5


def test_the_first_failure_of_all_processes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = SimpleNamespace(world_size=1)
    assert first_failure(alone, None) is None  # type: ignore[arg-type]
    assert first_failure(alone, Failure(3, "nan here")) == (3, "nan here")  # type: ignore[arg-type]
    two = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce_boolean_decision=lambda is_none: False))

    def gather(failures: list[Failure | None], mine: Failure | None) -> None:
        failures[:] = [mine, Failure(3, "nan there")]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    for mine in (None, Failure(4, "nan here")):  # on this process it is met one step later, in the weights
        assert first_failure(two, mine) == (3, "process 2 of 2: nan there")  # type: ignore[arg-type]
    assert first_failure(two, Failure(3, "nan here")) == (3, "process 1 of 2: nan here")  # type: ignore[arg-type]
