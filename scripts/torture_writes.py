"""Tests the writer of checkpoints alone, for torture.py: kills at random times, damaged files and a full disk."""

import os
import random
import shutil
import signal
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WRITERS = ("thaw", "Lightning")
NUM_WEIGHTS = 300_000
"""Numbers in a checkpoint: about 1.2 MB."""
UNREADABLE = -2
"""Stands for the step of a checkpoint that is missing or damaged."""


def torture_writes(folder: Path, count: int, generator: random.Random, small_disk: Path | None) -> int:
    """Kill each writer `count` times and print a table.

    A child process writes one checkpoint after the other and reports each when it is done. TMPDIR is on another file
    system.

    Returns:
        How often thaw's writer left no checkpoint to resume from, or only one older than it had to be.
    """
    get_context("forkserver").set_forkserver_preload(["lightning", "thaw.training.checkpoint_io"])
    os.environ["TMPDIR"] = other_disk = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    passed: dict[str, dict[str, list[bool]]] = {writer: {} for writer in WRITERS}
    for writer in WRITERS:
        for number in range(count):
            checkpoints = folder / "writes"
            reported = kill_while_writing(checkpoints, writer, generator.uniform(0, 0.1))
            damage = ("nothing else", "cut off", "a bit flipped")[number % 3]
            # After damage to the newest checkpoint the one before it is expected.
            expected = reported if damage == "nothing else" else damage_last(checkpoints, damage, generator)
            passed[writer].setdefault(f"killed; {damage}", []).append(
                step_to_resume_from(checkpoints, writer) >= max(expected, 0)
            )
            shutil.rmtree(checkpoints)
        if small_disk is not None:
            passed[writer]["disk full"] = [survives_full_disk(small_disk / "writes", writer) for _ in range(10)]
    shutil.rmtree(other_disk)
    print("| then | " + " | ".join(WRITERS) + " |\n|---|---|---|")
    for damage in passed["thaw"]:
        cells = [f"{sum(passed[writer][damage])} of {len(passed[writer][damage])}" for writer in WRITERS]
        print(f"| {damage} | " + " | ".join(cells) + " |", flush=True)
    return sum(results.count(False) for results in passed["thaw"].values())


def kill_while_writing(checkpoints: Path, writer: str, seconds: float) -> int:
    """Kill a writing process `seconds` after its second checkpoint; return the last step that it reported as done."""
    receiver, sender = get_context("forkserver").Pipe(duplex=False)
    process = get_context("forkserver").Process(target=write_endlessly, args=(checkpoints, writer, sender))
    process.start()
    sender.close()
    while (step := receiver.recv()) < 1:  # wait until there is a checkpoint before the last one
        pass
    time.sleep(seconds)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while True:
        try:
            step = receiver.recv()
        except EOFError:
            return step


def write_endlessly(checkpoints: Path, writer: str, sender: Connection) -> None:
    """Write the checkpoints of steps 0, 1, 2 ... and send the number of each when it is done."""
    step = 0
    while True:
        save(checkpoints, writer, step)
        sender.send(step)
        step += 1


def save(checkpoints: Path, writer: str, step: int) -> None:
    """Write `last.ckpt` of a step, whose weights all equal the step."""
    import torch
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    from thaw.training.checkpoint_io import AtomicCheckpointIO

    io = AtomicCheckpointIO() if writer == "thaw" else TorchCheckpointIO()
    content = {"step": step, "state_dict": {"weights": torch.full((NUM_WEIGHTS,), float(step))}}
    io.save_checkpoint(content, str(checkpoints / "last.ckpt"))


def damage_last(checkpoints: Path, damage: str, generator: random.Random) -> int:
    """Cut `last.ckpt` off, or flip a bit of it; return the step of the checkpoint before it."""
    file = checkpoints / "last.ckpt"
    if not file.is_file():  # the kill came while it was being renamed, or the writer lost it
        return 0
    if not (content := bytearray(file.read_bytes())):
        return 0
    position = generator.randrange(len(content))
    if damage == "cut off":
        content = content[:position]
    else:
        content[position] ^= 1 << generator.randrange(8)
    file.write_bytes(content)
    return step_of(checkpoints / "previous.ckpt")


def step_to_resume_from(checkpoints: Path, writer: str) -> int:
    """The step of the checkpoint that a run would resume from; UNREADABLE if there is none."""
    from thaw.training.checkpoint_io import newest_intact

    file = newest_intact(checkpoints) if writer == "thaw" else checkpoints / "last.ckpt"
    return UNREADABLE if file is None else step_of(file)


def step_of(file: Path) -> int:
    """The step of a checkpoint; UNREADABLE if it cannot be read or its weights are not those that were written."""
    import torch

    try:
        content: dict[str, Any] = torch.load(file, weights_only=True)
        step, weights = content["step"], content["state_dict"]["weights"]
        return int(step) if torch.equal(weights, torch.full((NUM_WEIGHTS,), float(step))) else UNREADABLE
    except Exception:
        return UNREADABLE


def survives_full_disk(checkpoints: Path, writer: str) -> bool:
    """Whether a save that does not fit raises an error and leaves the checkpoint before it intact."""
    shutil.rmtree(checkpoints, ignore_errors=True)
    save(checkpoints, writer, 0)
    filler = checkpoints.parent / "filler"
    free_bytes = shutil.disk_usage(checkpoints).free
    filler.write_bytes(bytes(max(free_bytes - 500_000, 0)))
    try:
        save(checkpoints, writer, 1)
        raised = False
    except (OSError, RuntimeError):
        raised = True
    filler.unlink()
    survived = raised and step_to_resume_from(checkpoints, writer) == 0
    shutil.rmtree(checkpoints)
    return survived
