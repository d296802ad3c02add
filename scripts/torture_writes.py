"""The writer of checkpoints alone, for torture.py: killed at random times, files cut off or changed, the disk full."""

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
NUMBERS = 300_000
"""Of a checkpoint, about 1.2 MB."""


def torture_writes(folder: Path, count: int, chance: random.Random, small_disk: Path | None) -> int:
    """Prints a table; gives the number of times that thaw's had nothing to go on from, or something older than it said.

    A child writes one checkpoint after the other and says of each when it is done. TMPDIR is on another file system.
    """
    get_context("forkserver").set_forkserver_preload(["lightning", "thaw.training.checkpoint_io"])
    os.environ["TMPDIR"] = other_disk = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    found: dict[str, dict[str, list[bool]]] = {writer: {} for writer in WRITERS}
    for writer in WRITERS:
        for number in range(count):
            place = folder / "writes"
            told = killed_while_writing(place, writer, chance.uniform(0, 0.1))
            harm = ("nothing else", "cut off", "a bit flipped")[number % 3]
            # What it did before the harm still counts: the file that is harmed is the last one.
            newest = harmed(place, harm, chance) if harm != "nothing else" else told
            right = step_to_go_on_from(place, writer) >= max(newest, 0)
            found[writer].setdefault(f"killed; {harm}", []).append(right)
            shutil.rmtree(place)
        if small_disk is not None:
            found[writer]["disk full"] = [on_a_full_disk(small_disk / "writes", writer) for _ in range(10)]
    shutil.rmtree(other_disk)
    print("| then | " + " | ".join(WRITERS) + " |\n|---|---|---|")
    for harm in found["thaw"]:
        cells = [f"{sum(found[writer][harm])} of {len(found[writer][harm])}" for writer in WRITERS]
        print(f"| {harm} | " + " | ".join(cells) + " |", flush=True)
    return sum(results.count(False) for results in found["thaw"].values())


def killed_while_writing(place: Path, writer: str, seconds: float) -> int:
    """The step of the last checkpoint of which the child said that it was done."""
    ours, theirs = get_context("forkserver").Pipe(duplex=False)
    process = get_context("forkserver").Process(target=write_for_ever, args=(place, writer, theirs))
    process.start()
    theirs.close()
    while (told := ours.recv()) < 1:  # so that there is one before the last
        pass
    time.sleep(seconds)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while True:
        try:
            told = ours.recv()
        except EOFError:
            return told


def write_for_ever(place: Path, writer: str, tell: Connection) -> None:
    step = 0
    while True:
        save(place, writer, step)
        tell.send(step)
        step += 1


def save(place: Path, writer: str, step: int) -> None:
    import torch
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    from thaw.training.checkpoint_io import AtomicCheckpointIO

    io = AtomicCheckpointIO() if writer == "thaw" else TorchCheckpointIO()
    content = {"step": step, "state_dict": {"weights": torch.full((NUMBERS,), float(step))}}
    io.save_checkpoint(content, str(place / "last.ckpt"))


def harmed(place: Path, harm: str, chance: random.Random) -> int:
    """Harms `last.ckpt`; gives the step of what is left."""
    file = place / "last.ckpt"
    if not file.is_file():  # the kill came between two names, or lost it
        return 0
    if not (content := bytearray(file.read_bytes())):
        return 0
    where = chance.randrange(len(content))
    if harm == "cut off":
        content = content[:where]
    else:
        content[where] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return step_of(place / "previous.ckpt")


def step_to_go_on_from(place: Path, writer: str) -> int:
    """-2 where there is nothing to go on from."""
    from thaw.training.checkpoint_io import newest_intact

    file = newest_intact(place) if writer == "thaw" else place / "last.ckpt"
    return -2 if file is None else step_of(file)


def step_of(file: Path) -> int:
    """-2 where it cannot be read, or is not what was written."""
    import torch

    try:
        content: dict[str, Any] = torch.load(file, weights_only=True)
        step, weights = content["step"], content["state_dict"]["weights"]
        return int(step) if torch.equal(weights, torch.full((NUMBERS,), float(step))) else -2
    except Exception:
        return -2


def on_a_full_disk(place: Path, writer: str) -> bool:
    """Whether what was there is there when no more fits, and the writer says so."""
    shutil.rmtree(place, ignore_errors=True)
    save(place, writer, 0)
    filler = place.parent / "filler"
    left = shutil.disk_usage(place).free
    filler.write_bytes(bytes(max(left - 500_000, 0)))
    try:
        save(place, writer, 1)
        said = False
    except (OSError, RuntimeError):
        said = True
    filler.unlink()
    right = said and step_to_go_on_from(place, writer) == 0
    shutil.rmtree(place)
    return right
