"""Runs what failed once more: the step with its batch and weights, or the loading of its samples."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from lightning.fabric.utilities import move_data_to_device

from thaw.errors import UserError
from thaw.finetuning.freezing import freeze_all_but
from thaw.replaying.callback import CrashKit
from thaw.replaying.kit import Crash, Kit, tensors_of
from thaw.replaying.trace import Trace
from thaw.seeds import seed_torch
from thaw.training.module import FineTuningModule
from thaw.types import BatchRequest

if TYPE_CHECKING:
    from thaw.data.module import DataModule


@dataclass(frozen=True)
class Again:
    """What happened this time."""

    error: Exception | None
    loss: float | None
    """As it went into the backward pass; None where there was none."""
    report: str
    """For people."""


def step_again(classifier: FineTuningModule, trainer: Trainer, at_work: CrashKit, kit: Kit) -> Again:
    """On the trainer's device, by the classifier's own step. `at_work`: among the trainer's callbacks. Raises
    ValueError where the weights are of another network."""
    crash, strategy = kit.crash, trainer.strategy
    assert kit.batch is not None
    # As Trainer.fit does it, up to the loop.
    strategy.connect(classifier)
    classifier.trainer = trainer
    strategy.setup_environment()
    strategy.setup(trainer)
    trainer.fit_loop.epoch_progress.current.completed = crash.epoch
    if crash.precision:
        trainer.precision_plugin.load_state_dict(crash.precision)
    _load(classifier, kit)
    classifier.train(crash.split == "train")
    freeze_all_but(classifier.network.stages, classifier.plan.trained(crash.epoch))
    if crash.split != "train":
        classifier.eval()
    batch = move_data_to_device(kit.batch, strategy.root_device)._replace(index=kit.batch.index)
    trace, error = Trace(classifier.network.stages), None
    seed_torch(crash.seed, strategy.root_device.type)
    with _threads(crash.num_threads), trace.watching():
        try:
            if crash.split == "train":
                with torch.autograd.set_detect_anomaly(trainer._detect_anomaly):
                    loss = strategy.training_step(batch, crash.batch_idx)
                    assert isinstance(loss, torch.Tensor)
                    classifier.require_finite_losses()
                    if crash.world_size > 1 and batch.total is not None:  # as Classifier.training_step
                        loss = loss * (crash.world_size * len(batch.target) / batch.total)
                    strategy.backward(loss / trainer.accumulate_grad_batches, None)
            else:
                testing = crash.split == "test"
                step = strategy.test_step if testing else strategy.validation_step
                loop = trainer.test_loop if testing else trainer.fit_loop.epoch_loop.val_loop
                with torch.inference_mode() if loop.inference_mode else torch.no_grad():
                    step(batch, crash.batch_idx)
                    classifier.require_finite_losses()
        except Exception as failure:
            error = failure
    found = Again(error, None if at_work.loss is None else at_work.loss.item(), trace.table())
    strategy.teardown()
    return found


def load_again(data: "DataModule", kit: Kit) -> Again:
    """The batch that was waited for; if it loads, each sample of its split: frozen stages may have asked for others."""
    crash, dataset = kit.crash, data.dataset_of(kit.crash.split)
    keys = [[index] for index in dict.fromkeys([*crash.samples, *data.parts[crash.split].tolist()])]
    for indices in [crash.samples, *keys] if crash.samples else keys:
        try:
            dataset[BatchRequest(indices, crash.view)]
        except Exception as error:
            names = ", ".join(data.identity(index).name for index in indices[:8])
            alone = "loading" if len(indices) == 1 else f"loading {len(indices)} samples together:"
            return Again(error, None, f"{alone} {names}{' ...' if len(indices) > 8 else ''}")
    return Again(None, None, f"all {len(keys)} samples of the {crash.split} split load")


def what_differs(crash: Crash, again: Again, loading: bool) -> str | None:
    """None where the run's error was met again."""
    if again.error is not None:
        then, now = _comparable(crash.message), _comparable(str(again.error))
        # What comes out of a loader process has a traceback in its message.
        if type(again.error).__name__ == crash.error and (now in then if loading else now == then):
            return None
        return f"now it is {type(again.error).__name__}: {again.error}"
    if loading:
        return "now they load. If the error came out of a frozen stage, caching=off makes that a part of the step"
    if crash.loss is not None and crash.loss == again.loss:
        return f"the step runs through with the same loss, {again.loss!r}: what failed came after the backward pass"
    then_loss = "not finite, or not there yet" if crash.loss is None else repr(crash.loss)
    now_loss = "finite" if again.loss is None else repr(again.loss)
    return f"now the step runs through; its loss is {now_loss}, it was {then_loss}"


def _load(classifier: FineTuningModule, kit: Kit) -> None:
    own = tensors_of(classifier)
    odd = [
        name
        for name in {**own, **kit.tensors}
        if name not in own or name not in kit.tensors or own[name].shape != kit.tensors[name].shape
    ]
    if odd:
        raise UserError(
            f"the weights in {kit.folder} are of another network than this code builds ({', '.join(odd[:8])}): take "
            f"the code of the run, {kit.crash.versions.get('thaw')}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(kit.tensors[name])


def _comparable(message: str) -> str:
    """Without addresses in the memory."""
    return re.sub(r"0x[0-9a-f]+", "0x", message)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
