"""Runs the failed step of a crash kit again, or the loading of its samples."""

import re
from dataclasses import dataclass

import torch
from lightning import Trainer
from lightning.fabric.utilities import move_data_to_device

from thaw.data.module import DataModule
from thaw.errors import UserError
from thaw.finetuning.freezing import freeze_all_but
from thaw.replaying.callback import CrashKitCallback
from thaw.replaying.kit import CrashKit, tensors_of
from thaw.replaying.trace import StageTrace
from thaw.seeds import seed_all
from thaw.training.module import FineTuningModule
from thaw.types import BatchRequest


@dataclass(frozen=True)
class ReplayResult:
    """What happened when the step ran again.

    Attributes:
        error: The error that the step failed with; None if it succeeded.
        loss: Loss that went into the backward pass; None if there was no backward pass.
        report: Text for the console: the table of stages, or which samples could not be loaded.
    """

    error: Exception | None
    loss: float | None
    report: str


def replay_step(module: FineTuningModule, trainer: Trainer, kit: CrashKit) -> ReplayResult:
    """Run the kit's step by the module's own code on the trainer's device, with the kit's weights, seed and threads.

    Raises:
        UserError: the kit's weights are of another network.
    """
    assert kit.batch is not None
    strategy, observer, error, threads = trainer.strategy, CrashKitCallback(), None, torch.get_num_threads()
    trainer.callbacks.append(observer)  # type: ignore[attr-defined]
    # Trainer.fit does the same before its loop.
    strategy.connect(module)
    module.trainer = trainer
    strategy.setup_environment()
    strategy.setup(trainer)
    trainer.fit_loop.epoch_progress.current.completed = kit.epoch
    if kit.precision:
        trainer.precision_plugin.load_state_dict(kit.precision)
    _load_tensors(module, kit)
    freeze_all_but(module.network, module.plan.trained(kit.epoch))
    trains = kit.split == "train"
    module.train(trains)
    batch = move_data_to_device(kit.batch, strategy.root_device)
    trace = StageTrace(module.network, batch.inputs)
    torch.set_num_threads(kit.num_threads)
    seed_all(kit.seed, strategy.root_device.type)
    step = getattr(strategy, {"train": "training_step", "val": "validation_step", "test": "test_step"}[kit.split])
    # Lightning validates within fit under no_grad only.
    inference = torch.inference_mode(kit.split == "test" and trainer.test_loop.inference_mode)
    try:
        with torch.set_grad_enabled(trains), inference, torch.autograd.set_detect_anomaly(trainer._detect_anomaly):
            output = step(batch, kit.batch_idx)
            if trains:
                strategy.backward(output["loss"] / trainer.accumulate_grad_batches, None)
    except Exception as failure:
        error = failure
    finally:
        torch.set_num_threads(threads)
    return ReplayResult(error, None if observer.loss is None else observer.loss.item(), trace.report())


def replay_loading(data: DataModule, kit: CrashKit) -> ReplayResult:
    """Load the batch that could not be loaded, sample by sample and then as a whole, then each sample of its split.

    The whole split, because activations of frozen stages are computed for other samples than the batch's, too.
    """
    dataset, (batch, view) = data.dataset(kit.split), kit.request
    requests = [[index] for index in (*batch, *data.parts[kit.split].tolist())]
    if batch:
        requests.insert(len(batch), batch)
    for indices in requests:
        try:
            dataset[BatchRequest(indices, view)]
        except Exception as error:
            names = ", ".join(data.identity(index).name for index in indices)
            return ReplayResult(error, None, f"loading failed, samples: {names}")
    return ReplayResult(None, None, f"all samples of the {kit.split} split load")


def is_same_error(error: Exception | None, kit: CrashKit) -> bool:
    """Whether `error` is the one that the run failed with, apart from memory addresses in its message."""
    if kit.non_finite and isinstance(error, FloatingPointError):
        return True  # every process of a run reports the samples of the first non-finite loss
    recorded, now = (re.sub("0x[0-9a-f]+", "0x", e).rstrip() for e in (kit.error, f"{type(error).__name__}: {error}"))
    return recorded.endswith(now)  # a loader process reports a traceback, which ends with the error


def _load_tensors(module: FineTuningModule, kit: CrashKit) -> None:
    tensors = tensors_of(module)
    shapes, recorded = ({(name, t.shape) for name, t in named.items()} for named in (tensors, kit.tensors))
    if differing := sorted({name for name, _ in shapes ^ recorded}):
        raise UserError(
            f"the weights of the crash kit are of another network than this code builds: {', '.join(differing[:8])} "
            f"differ. Use the code of the run, commit {kit.versions['commit']}"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(kit.tensors[name])
