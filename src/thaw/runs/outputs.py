"""Collects the network's output for each sample of a split, writes it to a file, and reads it again."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor

from thaw.distributed.agree import gather_on_first
from thaw.manifest import naming_damage
from thaw.tasks.outputs import KINDS, ClassOutputs, Outputs

MOST_ON_DEVICE = 2**24
"""Numbers that wait on the device until they are moved to the CPU: 64 MiB."""


KIND = "kind"
"""Key of the name of the kind of outputs in a file."""


def write_outputs(outputs: Outputs, file: Path) -> None:
    """Write a `.npz` file."""
    arrays: dict[str, Any] = {"indices": outputs.indices, "targets": outputs.targets, "logits": outputs.logits}
    arrays[KIND] = outputs.kind
    with file.open("wb") as opened:
        np.savez_compressed(opened, **arrays)


def read_outputs(file: Path) -> Outputs | None:
    """Read what `write_outputs` wrote; None if there is no such file. Raises UserError if it holds something else."""
    if not file.is_file():
        return None
    with naming_damage(file), np.load(file, allow_pickle=False) as arrays:
        kind = KINDS[str(arrays[KIND])] if KIND in arrays else ClassOutputs  # of earlier versions
        return kind(arrays["indices"], arrays["targets"], arrays["logits"])


class CollectOutputs(Callback):
    """Collects the outputs of each pass over validation or test samples. A prediction pass counts as validation.

    Attributes:
        latest: outputs of the latest whole pass by split, over all processes; on the first process only.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Outputs] = {}
        self._on_device: list[tuple[Tensor, ...]] = []
        self._moved: list[tuple[Tensor, ...]] = []
        self._kind: type[Outputs] = ClassOutputs

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Add a batch."""
        # Copies: a target may lie in memory that a loader process shares. Nothing waits for the device.
        task, target = pl_module.task, outputs["target"]
        self._kind = task.outputs
        kept = task.kept(outputs["output"].detach())
        self._on_device.append((kept, task.metric_target(target).clone(), outputs["index"].clone()))
        if len(self._on_device) * outputs["output"].numel() > MOST_ON_DEVICE:
            self._move()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the batches together."""
        self._end("val")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the batches together."""
        self._end("val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the batches together."""
        self._end("test")

    def _move(self) -> None:
        self._moved += [tuple(tensor.cpu() for tensor in batch) for batch in self._on_device]
        self._on_device = []

    def _end(self, split: str) -> None:
        self._move()
        batches, self._moved = self._moved, []
        arrays = [torch.cat(parts).numpy() for parts in zip(*batches, strict=True)]
        shares = [share for share in gather_on_first(arrays) if share]
        if shares:
            logits, targets, indices = (np.concatenate(parts) for parts in zip(*shares, strict=True))
            indices, first = np.unique(indices, return_index=True)
            self.latest[split] = self._kind(indices, targets[first], logits[first])


def latest_outputs(trainer: Trainer) -> dict[str, Outputs]:
    """Outputs of the trainer's latest pass over each split, by split; on the first process."""
    collectors = [callback for callback in trainer.callbacks if isinstance(callback, CollectOutputs)]  # type: ignore[attr-defined]
    return collectors[0].latest if collectors else {}
