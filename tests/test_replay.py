"""Runs that fail, and their failed steps run again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from tests.conftest import TINY
from tests.language import pretrained, texts
from thaw.config.assemble import split_data
from thaw.data.image_module import ImageDataset
from thaw.manifest import list_in_manifest
from thaw.replay import replay
from thaw.train import train
from thaw.training.ema import EMA
from thaw.training.module import FineTuningModule
from thaw.types import Batch, BatchRequest, StepOutput

Config = Callable[..., DictConfig]

EXPLODE = ("freezing=full", "optimizer.lr=1e20")


@pytest.fixture
def again(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Replay the run and return what is printed."""

    def run(*overrides: str) -> str:
        capsys.readouterr()
        replay(config(f"run={tmp_path / 'run'}", *overrides, name="replay"))
        return capsys.readouterr().out

    return run


def fail_at(monkeypatch: pytest.MonkeyPatch, split: str, number: int) -> None:
    """Let steps of a split fail from batch `number` on. The message has all digits of the loss."""
    step, done = FineTuningModule._step, []

    def failing(self: FineTuningModule, batch: Batch, batch_idx: int, of: str) -> StepOutput:
        if of == split:
            done.append(batch)
            if len(done) > number:
                shown = self._mix(batch) if of == "train" and self.mixing is not None else batch
                loss = self.task.loss(self(shown), shown.target).item()
                raise ArithmeticError(f"{loss!r} {torch.get_num_threads()} {torch.is_inference_mode_enabled()}")
        return step(self, batch, batch_idx, of)

    monkeypatch.setattr(FineTuningModule, "_step", failing)


@pytest.mark.parametrize(
    "choices",
    [
        (),
        ("mixing=mixup", "trainer.accumulate_grad_batches=2"),
        ("data.balance=loss", "callbacks=ema"),
        ("freezing=head_only",),
        ("trainer.precision=bf16-mixed",),
        ("trainer.precision=bf16-true", "data.balance=loss"),
    ],
)
def test_a_loss_that_is_not_finite_is_met_again(
    config: Config, tmp_path: Path, again: Callable[..., str], choices: tuple[str, ...]
) -> None:
    with pytest.raises(FloatingPointError):
        train(config(*TINY, *EXPLODE, *choices, "optimizer.lr=1e38"))
    printed = again()
    assert "\nreproduced: " in printed
    assert "largest weight" in printed


def test_a_later_epoch_is_told_by_the_message(config: Config, again: Callable[..., str]) -> None:
    phases = "freezing.phases=[{epochs: 1, train: [head]}, {epochs: 3, train: ['*'], lr_scale: 1e38}]"
    with pytest.raises(FloatingPointError, match=r"in epoch [12], .*phase 2 of 2"):
        train(config(*TINY, "freezing=phases", phases))
    assert "\nreproduced: " in again()


def test_a_loss_that_is_not_finite_in_validation_only(
    config: Config, tmp_path: Path, again: Callable[..., str]
) -> None:
    with pytest.raises(FloatingPointError, match="val batch 0"):  # of the first epoch: one step of training, on a batch
        train(config(*TINY, *EXPLODE, "data.labels_per_class=2"))
    printed = again()
    assert "val batch 0" in printed
    assert "the first stage with non-finite values: " in printed


@pytest.mark.parametrize(
    ("split", "number", "choices"),
    [
        ("train", 0, ("freezing=full",)),
        ("train", 6, ("freezing=full", "mixing=mixup", "head.dropout=0.3")),
        ("train", 6, ("freezing=full", "mixing=cutmix", "trainer.accumulate_grad_batches=3")),
        ("train", 6, ("freezing=full", "data.balance=loss", "loss.label_smoothing=0.1")),
        ("train", 6, ("freezing=full", "task.class_weights=[1,2,3,4,5,6,7,8,9,10]", "trainer.precision=bf16-mixed")),
        ("train", 6, ("mixing=mixup",)),
        ("train", 6, ("caching=off",)),
        ("train", 15, ("callbacks=ema", "trainer.precision=32-true")),
        ("train", 6, ("freezing=full", "channels_last=false", "data.num_workers=1")),
        ("val", 0, ()),  # before training
        ("val", 25, ("callbacks=ema",)),
        ("val", 25, ("caching=off", "data.balance=loss")),
        ("test", 2, ("callbacks=ema",)),
    ],
)
def test_a_step_is_met_again_to_the_last_bit(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    again: Callable[..., str],
    split: str,
    number: int,
    choices: tuple[str, ...],
) -> None:
    fail_at(monkeypatch, split, number)
    short = (
        ("data.batch_size=40", "freezing.epochs=5", "freezing.probe_epochs=3") if "freezing=full" not in choices else ()
    )
    with pytest.raises(ArithmeticError):
        train(config(*TINY, *choices, *short))
    assert "reproduced: ArithmeticError" in again()
    zero_tensors(tmp_path / "run/crash")
    with pytest.raises(ValueError, match=r"not reproduced: now there is ArithmeticError: \d\..*The run's traceback: "):
        again()


def test_features_behind_frozen_stages_are_what_is_met_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[..., str]
) -> None:
    fail_at(monkeypatch, "train", 4)
    with pytest.raises(ArithmeticError):
        train(config(*TINY, "freezing=head_only", "caching=on"))
    kept = torch.load(tmp_path / "run/crash/crash.pt", weights_only=True)
    assert kept["batch"]["start"] == 3
    assert kept["batch"]["inputs"].shape[1:] == (16,)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert "reproduced: ArithmeticError" in again()


def test_hidden_states_of_texts_are_met_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[..., str]
) -> None:
    pytest.importorskip("transformers")
    fail_at(monkeypatch, "train", 2)
    table, bert = texts(tmp_path), pretrained(tmp_path / "bert")
    choices = [choice for choice in TINY if "backbone" not in choice and "labels_per_class" not in choice]
    plan = ("freezing=phases", "freezing.phases=[{epochs: 2, train: ['*1', head]}]", "data.batch_size=8")
    with pytest.raises(ArithmeticError):
        train(
            config(
                "data=text_table",
                f"data.table={table}",
                "backbone=huggingface",
                f"backbone.name={bert}",
                *choices,
                *plan,
            )
        )
    kept = torch.load(tmp_path / "run/crash/crash.pt", weights_only=True)["batch"]
    assert kept["start"] > 0
    assert isinstance(kept["inputs"], list)
    Path(table).unlink()
    shutil.rmtree(bert)
    assert "reproduced: ArithmeticError" in again()


@pytest.mark.parametrize("choices", [("head.dropout=0.5",), ("mixing=mixup", "+backbone.dropout=0")])
def test_what_is_drawn_is_drawn_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[..., str], choices: tuple[str, ...]
) -> None:
    fail_at(monkeypatch, "train", 4)
    with pytest.raises(ArithmeticError):
        train(config(*TINY, "freezing=full", *choices))
    again()
    change_kit(tmp_path / "run/crash", seed=1)
    with pytest.raises(ValueError, match="not reproduced: now there is ArithmeticError"):
        again()


def test_the_step_is_of_as_many_threads(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[..., str]
) -> None:
    fail_at(monkeypatch, "train", 4)
    with pytest.raises(ArithmeticError):
        train(config(*TINY, "freezing=full"))
    here = torch.get_num_threads()
    change_kit(tmp_path / "run/crash", num_threads=3)
    with pytest.raises(ValueError, match=r"now there is ArithmeticError: \d\.\d+ 3 False"):
        again()
    assert torch.get_num_threads() == here


@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_a_backward_pass_that_fails_is_met_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, again: Callable[..., str]
) -> None:
    monkeypatch.setattr(nn.Flatten, "forward", lambda _, x: x.flatten(1) + (x.flatten(1) * 0).sqrt())
    with pytest.raises(RuntimeError, match="MulBackward0"):
        train(config(*TINY, "freezing=full", "+trainer.detect_anomaly=true"))
    assert "reproduced: RuntimeError" in again()
    assert not torch.is_anomaly_enabled()


def test_a_stage_that_fails_is_named(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    again: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError(f"no pooling of {object()}")

    caplog.set_level("INFO")
    monkeypatch.setattr(nn.AdaptiveAvgPool2d, "forward", failing)
    with pytest.raises(RuntimeError, match="no pooling"):
        train(config(*TINY, "freezing=full"))
    assert (
        f"kit is in {tmp_path}/run/crash. To run the step again: python -m thaw.replay run={tmp_path}/run"
        in caplog.text
    )
    text = (tmp_path / "run/crash/crash.txt").read_text()
    assert 'raise RuntimeError(f"no pooling' in text
    assert "layer1" in text.rpartition("Last lines of train.log:")[2]
    assert "the stage that failed: layer2" in again()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not reproduced: now there is no error"):
        again()


def test_what_fails_after_the_backward_pass_comes_with_the_same_loss(
    config: Config, monkeypatch: pytest.MonkeyPatch, again: Callable[..., str]
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("no clipping")

    monkeypatch.setattr(FineTuningModule, "configure_gradient_clipping", failing)
    with pytest.raises(RuntimeError, match="no clipping"):
        train(config(*TINY, "freezing=full", "mixing=mixup", "trainer.accumulate_grad_batches=3"))
    with pytest.raises(
        ValueError, match=r"now there is no error. Loss .*: now (\d\.\d+), in the run \1; if both are equal"
    ):
        again()


@pytest.mark.parametrize("choices", [("caching=off",), ("caching=on",), ("caching=off", "data.num_workers=1")])
def test_a_sample_that_cannot_be_loaded_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[..., str], choices: tuple[str, ...]
) -> None:
    cfg = config(*TINY, "data.batch_size=10", *choices)
    broken = split_data(cfg).train_indices[70]
    load = ImageDataset.__getitem__

    def failing(self: ImageDataset, key: BatchRequest) -> Batch:
        if broken in key.indices:
            raise LookupError("a broken sample")
        return load(self, key)

    monkeypatch.setattr(ImageDataset, "__getitem__", failing)
    with pytest.raises(LookupError, match="a broken sample"):
        train(cfg)
    printed = again()
    assert "reproduced: LookupError" in printed
    assert f"loading failed, samples: {broken}\n" in printed
    kit = torch.load(tmp_path / "run/crash/crash.pt", weights_only=True)
    assert not kit["tensors"]
    assert (broken in kit["request"][0]) == ("caching=off" in choices), "what frozen stages ask for is in another order"
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not reproduced: now there is no error"):
        again()


def test_an_interrupt_leaves_no_kit(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FineTuningModule, "step", interrupted)
    with pytest.raises(SystemExit):
        train(config(*TINY, "freezing=full"))
    assert not list((tmp_path / "run").glob("crash*"))


def test_nor_does_what_is_no_step(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise ArithmeticError("no average")

    monkeypatch.setattr(EMA, "on_train_batch_end", failing)  # the weights are no longer those of the step
    with pytest.raises(ArithmeticError, match="no average"):
        train(config("callbacks=ema", *TINY, f"run_folder={tmp_path}/two"))
    assert not list((tmp_path / "two").glob("crash*"))


def test_none_is_left_where_none_is_wanted(config: Config, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        train(config(*TINY, *EXPLODE, "callbacks.crash_kit=null"))
    assert not (tmp_path / "run/crash").exists()


def test_a_kit_that_cannot_be_written_does_not_hide_the_error(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FloatingPointError):
        train(config(*TINY, *EXPLODE))
    assert "no crash kit was written: OSError: no space left" in caplog.text
    assert not list((tmp_path / "run").glob("crash*"))


def test_what_cannot_be_replayed_says_why(config: Config, tmp_path: Path, again: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        again()
    with pytest.raises(FloatingPointError):
        train(config(*TINY, *EXPLODE))
    with pytest.raises(ValueError, match=r"has no crash kit of rank 3: .* Kits in this folder: crash$"):
        again("rank=3")
    kit = tmp_path / "run/crash"
    content = (kit / "crash.pt").read_bytes()
    change(kit / "config.yaml", "tests.tiny.backbone", "tests.tiny.renamed")
    with pytest.raises(ValueError, match=r"cannot build the run's network: use its code, commit .*renamed"):
        again()
    change(kit / "config.yaml", "tests.tiny.renamed", "tests.tiny.backbone\n  channels: 3")
    with pytest.raises(
        ValueError, match=r"of another network than this code builds: network.backbone.stem.0.weight differ"
    ):
        again()
    (kit / "crash.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"crash is damaged, or was written by another version of thaw"):
        again()
    for file in kit.iterdir():
        file.unlink()
    kit.rmdir()
    with pytest.raises(ValueError, match=r"has no crash kit: a run leaves one .* Kits in this folder: none"):
        again()


def test_other_versions_are_named(config: Config, tmp_path: Path, again: Callable[..., str]) -> None:
    with pytest.raises(FloatingPointError):
        train(config(*TINY, *EXPLODE))
    versions = torch.load(tmp_path / "run/crash/crash.pt", weights_only=True)["versions"]
    change_kit(tmp_path / "run/crash", versions={**versions, "torch": "1.0"})
    assert f"differs from the run: torch 1.0, now {torch.__version__}" in again()


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def change_kit(kit: Path, **values: Any) -> None:
    content = torch.load(kit / "crash.pt", weights_only=True)
    assert content.keys() >= values.keys()
    torch.save({**content, **values}, kit / "crash.pt")
    list_in_manifest(kit / "crash.pt")


def zero_tensors(kit: Path) -> None:
    tensors = torch.load(kit / "crash.pt", weights_only=True)["tensors"]
    change_kit(kit, tensors={name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
