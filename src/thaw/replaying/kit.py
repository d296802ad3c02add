"""Crash kit: what a failed run leaves in its folder, so that the step it failed in can be run again.

crash.txt    for people: the error, its traceback, the last lines of train.log, and every plain value of the kit
crash.pt     the CrashKit: batch, weights, buffers, seed, versions; `torch.load(..., weights_only=True)` reads it
config.yaml  samples.csv  input_spec.json  backbone.json   copies from the run folder

The kit of rank 0 is the folder `crash`, that of rank 1 `crash_rank1`.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.manifest import digest_of, require_intact, write_manifest
from thaw.models.weights import read_checkpoint
from thaw.runs.files import BACKBONE_FILE, CONFIG_FILE, INPUT_SPEC_FILE, SAMPLES_FILE
from thaw.storage import UNFINISHED
from thaw.types import Batch, TokenStates

TEXT_FILE, KIT_FILE = "crash.txt", "crash.pt"
COPIED_FILES = (CONFIG_FILE, SAMPLES_FILE, INPUT_SPEC_FILE, BACKBONE_FILE)


@dataclass(frozen=True)
class CrashKit:
    """All that is needed to run a failed step again.

    Attributes:
        error: Class name and message of the error that the run failed with, `ValueError: ...`.
        non_finite: Whether that error says that the loss became NaN or infinite.
        split: train, val or test.
        epoch: Number of the epoch, from 0.
        batch_idx: Number of the batch in its epoch, from 0.
        rank: Rank of the process that failed.
        seed: Seed of dropout and mixing in this step.
        loss: Loss that went into the backward pass; None if the step failed before.
        request: Sample indices of the batch (empty if unknown), and the number of their augmented version (None for
            evaluation).
        class_names: Class names in the order of the network's outputs.
        num_threads: Threads that torch computed with.
        precision: State of the precision plugin: the loss scale of 16-mixed, otherwise empty.
        versions: Result of `thaw.versions.current_versions` in the run.
        batch: Batch that the step failed on; None if the run failed while loading it.
        tensors: Weights and buffers of network and task by name; empty without a batch.
    """

    error: str
    non_finite: bool
    split: str
    epoch: int
    batch_idx: int
    rank: int
    seed: int
    loss: float | None
    request: tuple[list[int], int | None]
    class_names: list[str]
    num_threads: int
    precision: dict[str, Any]
    versions: dict[str, str]
    batch: Batch | None
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        return f"{self.split} batch {self.batch_idx} of epoch {self.epoch} (rank {self.rank}): {self.error}"


def write_kit(run: Path, kit: CrashKit, text: str) -> Path:
    """Write a kit into the run folder, whole or not at all, in place of an earlier one. Returns the kit's folder."""
    folder = run / _folder_name(kit.rank)
    unfinished = folder.with_suffix(UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for name in COPIED_FILES:
            if (run / name).is_file():
                shutil.copyfile(run / name, unfinished / name)
        (unfinished / TEXT_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
        content = {**vars(kit), "batch": None if kit.batch is None else _as_plain_values(kit.batch)}
        torch.save(apply_to_collection(content, Tensor, _copy), unfinished / KIT_FILE)
        write_manifest(unfinished, {file.name: [digest_of(file)] for file in unfinished.iterdir()})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def find_kit(run: Path, rank: int | None) -> Path:
    """Folder of the kit that a rank left in a run folder; with rank None, of the kit that was written last.

    Raises:
        UserError: there is no such kit.
    """
    folders = [file.parent for file in run.glob(f"crash*/{KIT_FILE}") if file.parent.suffix != UNFINISHED]
    matching = [folder for folder in folders if rank is None or folder.name == _folder_name(rank)]
    if not matching:
        raise UserError(
            f"{run} has no crash kit{'' if rank is None else f' of rank {rank}'}: a run leaves one where a step or "
            f"loading a batch fails. Kits in this folder: {', '.join(folder.name for folder in folders) or 'none'}"
        )
    return max(matching, key=lambda folder: folder.stat().st_mtime)


def read_kit(folder: Path) -> CrashKit:
    """Read a kit from its folder. Nothing in it is executed.

    Raises:
        UserError: the kit is damaged or of another version of thaw.
    """
    try:
        content = read_checkpoint(require_intact(folder / KIT_FILE, "Bring it back from a copy"))
        batch = content["batch"]
        return CrashKit(**{**content, "batch": None if batch is None else _as_batch(batch)})
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged, or was written by another version of thaw: {error}") from error


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name, also those that are not part of a state dict."""
    return dict([*module.named_parameters(), *module.named_buffers()])


def version_changes(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """One text for each version that differs: `torch 2.11.0, now 2.12.0`."""
    names = sorted(name for name in {**then, **now} if then.get(name) != now.get(name))
    return [f"{name} {then.get(name)}, now {now.get(name)}" for name in names]


def _folder_name(rank: int) -> str:
    return f"crash_rank{rank}" if rank else "crash"


def _as_plain_values(batch: Batch) -> dict[str, Any]:
    inputs: Any = batch.inputs
    return {**batch._asdict(), "inputs": list(inputs) if isinstance(inputs, TokenStates) else inputs}


def _as_batch(values: dict[str, Any]) -> Batch:
    inputs = values["inputs"]
    return Batch(**{**values, "inputs": TokenStates(*inputs) if isinstance(inputs, list) else inputs})


def _copy(tensor: Tensor) -> Tensor:
    """A copy in main memory. Without it torch.save would write the whole storage that a slice is part of."""
    return tensor.detach().cpu().clone()
