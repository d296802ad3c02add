"""A repro kit: what a run that failed leaves in its folder, so that the step can be run again.

crash.txt                        for people: the error, its traceback, the last lines of train.log
crash.json                       where it happened, what seeds the step, the versions
tensors.pt                       the batch, and all weights and buffers as they were
config.yaml  samples.csv  input_spec.json  backbone.json  as in the run folder

Ranks do not share one: `crash` is that of rank 0, `crash_rank1` that of rank 1.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.errors import UserError
from thaw.models.weights import read_checkpoint
from thaw.runs.folder import BACKBONE_FILE, CONFIG_FILE, INPUT_SPEC_FILE, SAMPLES_FILE, RunFolder
from thaw.types import Batch, TokenStates

CRASH_FILE, TEXT_FILE, TENSORS_FILE = "crash.json", "crash.txt", "tensors.pt"
COPIED = (CONFIG_FILE, SAMPLES_FILE, INPUT_SPEC_FILE, BACKBONE_FILE)


@dataclass(frozen=True)
class Crash:
    """Where a run failed, in plain values."""

    error: str
    """The name of its class."""
    message: str
    split: str
    epoch: int
    phase: int
    """From 1."""
    batch_idx: int
    """Of the epoch, from 0: the batch at work, or the one that was to be loaded."""
    global_step: int
    """Optimizer steps done."""
    rank: int
    world_size: int
    seed: int
    """Of dropout and mixing in this step."""
    loss: float | None
    """None where there was none yet, or it was not finite."""
    samples: list[int]
    """Of the batch, by their lines in samples.csv; empty where it is not known which were to be loaded."""
    view: int | None
    """Which augmented version of them; None: the evaluation's."""
    class_names: list[str]
    device: str
    """Its type."""
    num_threads: int
    precision: dict[str, Any]
    """State of the precision plugin: the scale of 16-mixed."""
    versions: dict[str, str]

    def __str__(self) -> str:
        rank = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return (
            f"{self.error} in epoch {self.epoch} (phase {self.phase}), {self.split} batch {self.batch_idx}, "
            f"after {self.global_step} steps{rank}: {self.message}"
        )


@dataclass(frozen=True)
class Kit:
    folder: Path
    crash: Crash
    batch: Batch | None
    """None where the run failed in loading it."""
    tensors: dict[str, Tensor]
    """Weights and buffers by name; empty without a batch."""


def kit_folder(run: Path, rank: int) -> Path:
    return run / (f"crash_rank{rank}" if rank else "crash")


def write_kit(run: Path, crash: Crash, batch: Batch | None, tensors: Mapping[str, Tensor], text: str) -> Path:
    """Whole or not at all, in place of an earlier one; gives its folder."""
    folder = kit_folder(run, crash.rank)
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for name in COPIED:
            if (run / name).is_file():
                shutil.copyfile(run / name, unfinished / name)
        (unfinished / TEXT_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
        (unfinished / CRASH_FILE).write_text(_lines(asdict(crash)))
        content = {
            "batch": None if batch is None else _plain(batch),
            "tensors": {k: _own(v) for k, v in tensors.items()},
        }
        torch.save(content, unfinished / TENSORS_FILE)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def read_kit(run: RunFolder, rank: int | None) -> Kit:
    """`rank` None: the last that left one. Raises UserError where there is none, or it is damaged."""
    run.config()  # or it is no run folder
    there = [number for number in _ranks(run.path) if rank is None or number == rank]
    if not there:
        others = ", ".join(f"rank={number}" for number in _ranks(run.path))
        raise UserError(
            f"{run.path} has no repro kit{'' if rank is None else f' of rank {rank}'}: a run leaves one (the batch, "
            f"the weights ...) where a step or loading a batch fails"
            + (f". There is one for {others}" if others else ", and this one did not fail so")
        )
    folder = kit_folder(run.path, there[0])
    try:
        content = read_checkpoint(folder / TENSORS_FILE)
        crash = Crash(**json.loads((folder / CRASH_FILE).read_text()))
        batch = None if content["batch"] is None else _batch(content["batch"])
        return Kit(folder, crash, batch, content["tensors"])
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged, or of another version of thaw: {error}") from error


def _ranks(run: Path) -> list[int]:
    """Those that left a kit, the last one first."""
    folders = sorted((f for f in run.glob("crash*") if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
    found = [folder.name.removeprefix("crash").removeprefix("_rank") for folder in folders]
    return [int(rank or 0) for rank in found if rank.isdigit() or not rank]


def tensors_of(classifier: nn.Module) -> dict[str, Tensor]:
    """What decides a step: weights and buffers of the network and of the task, by name."""
    named = {**dict(classifier.named_parameters()), **dict(classifier.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name.startswith(("network.", "task."))}


def _lines(values: Mapping[str, Any]) -> str:
    """JSON with a line for each: a batch may be long."""
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()) + "\n}\n"


def _plain(batch: Batch) -> dict[str, Any]:
    """Of tensors and plain values only, so that nothing in the file is executed when it is read."""
    inputs: Any = batch.inputs
    if isinstance(inputs, TokenStates):
        assert inputs.calls is None, "the network makes them again"
        inputs = {"hidden": [_own(inputs.states), _own(inputs.mask)]}
    elif isinstance(inputs, dict):
        inputs = {name: _own(tensor) for name, tensor in inputs.items()}
    else:
        inputs = _own(inputs)
    return {**batch._asdict(), "inputs": inputs, "target": _own(batch.target), "index": _own(batch.index)}


def _batch(plain: dict[str, Any]) -> Batch:
    inputs = plain["inputs"]
    if isinstance(inputs, dict) and "hidden" in inputs:
        inputs = TokenStates(*inputs["hidden"])
    return Batch(**{**plain, "inputs": inputs})


def _own(tensor: Tensor) -> Tensor:
    """In the memory, and no part of a larger one: torch.save would write all of that."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
