"""Kill training at awkward moments, let it go on, and look whether it ends as if nothing had happened.

    python scripts/torture.py                              # 64 runs: 8 moments x (images, texts) x workers x augmented
    python scripts/torture.py --runs 0 --ddp 10            # two processes, killed at random times
    python scripts/torture.py --runs 0 --writes 200 --small-disk /mnt/tiny    # the writer of checkpoints alone

A run has five phases, an average of the weights, clipped gradients, checkpoints inside epochs and TensorBoard. Its
process is killed (SIGKILL) at the moment, and started again with the same command (resume=auto) until it ends. Then
weights, optimizer, schedule, average, callbacks, the order of samples, every row of metrics.csv and of TensorBoard and
all results must be equal, to the last bit, to those of a run that was left alone. Texts are not augmented: they have
dropout instead. `--mutate` skips a batch where a run goes on, to see that this is found.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from torture_moments import MOMENTS, kill_at

PHASES = "{epochs: 2, train: [head]}, {epochs: 1, train: [%s, head]}, {epochs: 1, train: ['*']}, "
PHASES += "{epochs: 1, train: [head], lr_scale: 0.5}, {epochs: 2, train: ['*'], lr_scale: 0.2}"
ALWAYS = (
    "callbacks=ema",
    "callbacks.checkpoint.every_minutes=0",
    "trainer.gradient_clip_val=1.0",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "~callbacks.progress_bar",
    "~callbacks.model_summary",
    "+trainer.enable_progress_bar=false",
    "+trainer.enable_model_summary=false",
)
MOST_STARTS = 6
VICTIMS = ("command", "process", "all")
STATE = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "callbacks")


def main() -> None:
    choices = arguments()
    chance = random.Random(choices.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["THAW_CACHE"] = str(folder / "cache")
        make_data(folder)
        failed = 0
        if choices.runs:
            cases = list(product(MOMENTS, ("image", "text"), (0, 2), (False, True)))
            failed += torture_runs(folder, chance.sample(cases, min(choices.runs, len(cases))), chance, choices.mutate)
        if choices.ddp:
            failed += torture_ranks(folder, choices.ddp, chance)
        if choices.writes:
            from torture_writes import torture_writes

            failed += torture_writes(folder, choices.writes, chance, choices.small_disk)
    sys.exit(min(failed, 1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=64, help="so many of the 64 cases")
    parser.add_argument("--ddp", type=int, default=0, help="so many runs of two processes")
    parser.add_argument("--writes", type=int, default=0, help="so many kills of the writer of checkpoints")
    parser.add_argument("--small-disk", type=Path, help="a folder on a disk of a few MB, to fill it up")
    parser.add_argument("--mutate", action="store_true", help="skip a batch where a run goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the cases and the moments")
    return parser.parse_args()


def torture_runs(folder: Path, cases: Sequence[tuple[str, str, int, bool]], chance: random.Random, mutate: bool) -> int:
    """Prints a table, a row a moment; gives the number of runs that ended otherwise."""
    alone: dict[tuple[str, int, bool], Any] = {}
    found: dict[str, list[bool]] = {moment: [] for moment in MOMENTS}
    starts: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    for moment, kind, workers, augmented in sorted(cases, key=lambda case: case[1:]):
        overrides = configuration(folder, kind, workers, augmented)
        if (same := (kind, workers, augmented)) not in alone:
            alone[same] = left_alone(folder, overrides)
        run = folder / "run"
        shutil.rmtree(folder / "cache", ignore_errors=True)
        kills = list(kill_at(moment, chance))
        for number in range(MOST_STARTS):
            starts[moment] += 1
            if in_a_process(run, overrides, kills[number] if number < len(kills) else None, mutate) == 0:
                break
        differs = difference(ended(run), alone[same])
        found[moment].append(not differs and number == len(kills))
        print(f"{len(found[moment])}. {moment}, {same}", file=sys.stderr, flush=True)
        if not found[moment][-1]:
            print(f"{moment}, {same}: after {number + 1} starts {differs or 'as it should'}", flush=True)
        shutil.rmtree(run, ignore_errors=True)
    print("| killed | starts | ended bit-identical |\n|---|---|---|")
    for moment, results in found.items():
        if results:
            print(f"| {moment} | {starts[moment]} | {sum(results)} of {len(results)} |")
    total = [result for results in found.values() for result in results]
    print(f"| all | {sum(starts.values())} | {sum(total)} of {len(total)} |", flush=True)
    return total.count(False)


def configuration(folder: Path, kind: str, workers: int, augmented: bool) -> tuple[str, ...]:
    of_kind: tuple[str, ...]
    if kind == "image":
        last = "stage4"
        augment = "strong" if augmented else "none"
        of_kind = ("data=image_folder", f"data.root={folder}/photos", f"data.augment={augment}")
    else:
        last = "layer0"
        of_kind = ("data=text_table", f"data.table={folder}/texts.csv", "backbone=gru", "optimizer=sgd")
        of_kind += (f"head.dropout={0.3 if augmented else 0}",)
    return (
        *of_kind,
        *ALWAYS,
        f"data.num_workers={workers}",
        "data.batch_size=16",
        "freezing=phases",
        f"freezing.phases=[{PHASES % last}]",
    )


def left_alone(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    shutil.rmtree(folder / "cache", ignore_errors=True)
    run = folder / "alone"
    assert in_a_process(run, overrides, None, False) == 0, "a run that is left alone comes to its end"
    found = ended(run)
    shutil.rmtree(run)
    return found


def in_a_process(run: Path, overrides: Sequence[str], kill: Any, mutate: bool) -> int:
    """Its exit code; it is forked from one that has imported everything."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["thaw.config.build", "thaw.train", "transformers", "tensorboard"])
    process = context.Process(target=train, args=(run, list(overrides), kill, mutate))
    process.start()
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{run} hangs")
    assert process.exitcode is not None
    return process.exitcode


def train(run: Path, overrides: list[str], kill: Any, mutate: bool) -> None:
    """In the child."""
    sys.argv = ["thaw.train", *overrides, f"run_folder={run}", "resume=auto"]
    with (run.parent / "output.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        if kill is not None:
            kill.install()
        if mutate:
            from thaw.data.module import DataModule

            right = DataModule._batches_done
            DataModule._batches_done = lambda self: right(self) + (right(self) > 0)  # type: ignore[method-assign]
        from thaw.train import main as train_main

        train_main()


def ended(run: Path) -> dict[str, Any]:
    """All that a run leaves."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    results = json.loads((run / "metrics.json").read_text())
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        **{name: last[name] for name in STATE},
        "order": last["order"],
        "rows": (run / "metrics.csv").read_text().splitlines(),
        "tensorboard": {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        },
        "results": {**results, "seconds": 0},
    }


def difference(one: Any, other: Any, where: str = "") -> str:
    """Where two values differ first; nothing where they are equal to the last bit."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return "" if torch.equal(one, other) else where
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next((d for key in one if (d := difference(one[key], other[key], f"{where}/{key}"))), "")
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return next((d for n, (a, b) in enumerate(zip(one, other)) if (d := difference(a, b, f"{where}/{n}"))), "")  # noqa: B905
    return "" if type(one) is type(other) and one == other else f"{where}: {str(one)[:99]} and {str(other)[:99]}"


def torture_ranks(folder: Path, count: int, chance: random.Random) -> int:
    """Two processes; the command that started them, one of them, or all three killed at a random time."""
    overrides = configuration(folder, "image", 0, True)
    overrides += ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "+trainer.enable_progress_bar=false")
    overrides = tuple(dict.fromkeys(overrides))
    began = time.monotonic()
    assert command(folder / "alone", overrides, None) == 0
    seconds, alone = time.monotonic() - began, ended(folder / "alone")
    failed, starts = 0, 0
    for _ in range(count):
        run = folder / "ranks"
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for number in range(MOST_STARTS):
            starts += 1
            moment = chance.uniform(0.3, 0.95) * seconds if number < 2 else None
            if command(run, overrides, moment, chance.choice(VICTIMS)) == 0:
                break
        if differs := difference(ended(run), alone):
            print(f"two processes: {differs}", flush=True)
            failed += 1
        shutil.rmtree(run)
    print(f"two processes: {count - failed} of {count} ended bit-identical, after {starts} starts", flush=True)
    return failed


def command(run: Path, overrides: Sequence[str], kill_after: float | None, victim: str = "") -> int:
    """The exit code of the whole command, as a user types it; what it started must not outlive it."""
    words = [sys.executable, "-m", "thaw.train", *overrides, f"run_folder={run}", "resume=auto"]
    with (run.parent / "output.txt").open("a") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
        try:
            return process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            started = [pid for pid in processes_of(run) if pid != process.pid]
            for pid in {"command": [process.pid], "process": started[:1], "all": [process.pid, *started]}[victim]:
                with suppress(ProcessLookupError):  # it may just have ended
                    os.kill(pid, signal.SIGKILL)
            return process.wait()
        finally:
            deadline = time.monotonic() + 60
            while processes_of(run):
                assert time.monotonic() < deadline, "a process outlives the command"
                time.sleep(0.1)


def processes_of(run: Path) -> list[int]:
    """The command, and the two that it started."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if f"run_folder={run} " in line]


def make_data(folder: Path) -> None:
    """96 noisy photographs of three colours, and 96 texts of three topics."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    words = {
        "sea": "wave salt ship shore tide",
        "wood": "tree leaf moss root path",
        "town": "street house bus shop lamp",
    }
    rows = []
    for channel, (name, own) in enumerate(words.items()):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(32):
            pixels = generator.integers(0, 120, (24, 30, 3), dtype=np.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels).save(folder / f"photos/{name}/{number}.png")
            chosen = generator.choice([*own.split(), "the", "a", "some", "near"], 3 + number % 9)
            rows.append(f"{' '.join(chosen)},{name}")
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")


if __name__ == "__main__":
    main()
