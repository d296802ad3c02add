"""Kill training at awkward moments, resume it, and check that it ends as if it had never been killed.

    python scripts/torture.py                              # 64 runs: 8 moments x (images, texts) x workers x augmented
    python scripts/torture.py --runs 0 --ddp 10            # two processes, killed at random times
    python scripts/torture.py --runs 0 --writes 200 --small-disk /mnt/tiny    # the writer of checkpoints alone

A run has five phases, averaged weights, clipped gradients, checkpoints inside epochs and TensorBoard. Its process is
killed (SIGKILL) at the given moment and started again with the same command (resume=auto) until it finishes. Weights,
optimizer, schedule, average, callbacks, the order of samples, every row of metrics.csv and TensorBoard, and all results
must then equal those of an undisturbed run to the last bit. Texts have dropout in place of augmentation. `--mutate`
skips a batch after each resume, to show that the comparison notices it.
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
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any

from configuration import QUIET
from torture_moments import MOMENTS, kill_at

PHASES = "{epochs: 2, train: [head]}, {epochs: 1, train: [%s, head]}, {epochs: 1, train: ['*']}, "
PHASES += "{epochs: 1, train: [head], lr_scale: 0.5}, {epochs: 2, train: ['*'], lr_scale: 0.2}"
ALWAYS = (
    "callbacks=ema",
    "callbacks.checkpoint.every_minutes=0",
    "trainer.gradient_clip_val=1.0",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    *QUIET,
)
"""Overrides of every run."""
MOST_STARTS = 6
"""How often a run is started before it counts as failed."""
VICTIMS = ("command", "process", "all")
"""What is killed of a run in two processes."""
STATE = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "callbacks")
"""Keys of a checkpoint that are compared."""
TIMED = ("speed/", "memory/")
"""Metrics that differ from run to run."""


def main() -> None:
    """Do what the command line asks for; the exit code is 1 if anything differed."""
    choices = arguments()
    generator = random.Random(choices.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["THAW_CACHE"] = str(folder / "cache")
        make_data(folder)
        failed = 0
        if choices.runs:
            cases = list(product(MOMENTS, ("image", "text"), (0, 2), (False, True)))
            failed += torture_runs(
                folder, generator.sample(cases, min(choices.runs, len(cases))), generator, choices.mutate
            )
        if choices.ddp:
            failed += torture_ranks(folder, choices.ddp, generator)
        if choices.writes:
            from torture_writes import torture_writes

            failed += torture_writes(folder, choices.writes, generator, choices.small_disk)
    sys.exit(min(failed, 1))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=64, help="how many of the 64 cases")
    parser.add_argument("--ddp", type=int, default=0, help="number of runs in two processes")
    parser.add_argument("--writes", type=int, default=0, help="number of kills of the writer of checkpoints")
    parser.add_argument("--small-disk", type=Path, help="a folder on a disk of a few MB, which is filled up")
    parser.add_argument("--mutate", action="store_true", help="skip a batch after each resume")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of cases and moments")
    return parser.parse_args()


def torture_runs(
    folder: Path, cases: Sequence[tuple[str, str, int, bool]], generator: random.Random, mutate: bool
) -> int:
    """Kill one run per case and print a table with a row per moment.

    Returns:
        The number of runs that ended differently, or were not killed as often as planned.
    """
    undisturbed: dict[tuple[str, int, bool], Any] = {}
    passed: dict[str, list[bool]] = {moment: [] for moment in MOMENTS}
    starts: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    for moment, kind, workers, augmented in sorted(cases, key=lambda case: case[1:]):
        overrides = configuration(folder, kind, workers, augmented)
        if (setting := (kind, workers, augmented)) not in undisturbed:
            undisturbed[setting] = run_undisturbed(folder, overrides)
        run = folder / "run"
        shutil.rmtree(folder / "cache", ignore_errors=True)
        kills = list(kill_at(moment, generator))
        for number in range(MOST_STARTS):
            starts[moment] += 1
            if in_a_process(run, overrides, kills[number] if number < len(kills) else None, mutate) == 0:
                break
        differs = difference(results_of(run), undisturbed[setting])
        passed[moment].append(not differs and number == len(kills))
        print(f"{len(passed[moment])}. {moment}, {setting}", file=sys.stderr, flush=True)
        if not passed[moment][-1]:
            print(f"{moment}, {setting}: after {number + 1} starts {differs or 'no difference'}", flush=True)
        shutil.rmtree(run, ignore_errors=True)
    print("| killed | starts | ended bit-identical |\n|---|---|---|")
    for moment, results in passed.items():
        if results:
            print(f"| {moment} | {starts[moment]} | {sum(results)} of {len(results)} |")
    total = [result for results in passed.values() for result in results]
    print(f"| all | {sum(starts.values())} | {sum(total)} of {len(total)} |", flush=True)
    return total.count(False)


def configuration(folder: Path, kind: str, workers: int, augmented: bool) -> tuple[str, ...]:
    """Overrides of one setting: `kind` is image or text, `workers` the number of loader processes."""
    of_kind: tuple[str, ...]
    if kind == "image":
        last = "stage4"
        augment = "strong" if augmented else "none"
        of_kind = ("data=image_folder", f"data.root={folder}/photos", f"data.augment={augment}", "backbone=glyphs")
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


def run_undisturbed(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train without a kill and return the results."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    run = folder / "undisturbed"
    assert in_a_process(run, overrides, None, False) == 0, "an undisturbed run must finish"
    results = results_of(run)
    shutil.rmtree(run)
    return results


def in_a_process(run: Path, overrides: Sequence[str], kill: Any, mutate: bool) -> int:
    """Train in a process forked from one that has imported everything, and return its exit code."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["thaw.config.assemble", "thaw.train", "transformers", "tensorboard"])
    process = context.Process(target=train, args=(run, list(overrides), kill, mutate))
    process.start()
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{run} hangs")
    assert process.exitcode is not None
    return process.exitcode


def train(run: Path, overrides: list[str], kill: Any, mutate: bool) -> None:
    """Train in this process, which has been started for it."""
    set_start_method(get_all_start_methods()[0], force=True)  # loader processes start as in any other run
    sys.argv = ["thaw.train", *overrides, f"run_folder={run}", "resume=auto"]
    with (run.parent / "output.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        if kill is not None:
            kill.install()
        if mutate:
            from thaw.data.module import DataModule

            original = DataModule._batches_done
            DataModule._batches_done = lambda self: original(self) + (original(self) > 0)  # type: ignore[method-assign]
        from thaw.train import main as train_main

        train_main()


def results_of(run: Path) -> dict[str, Any]:
    """Read everything that a finished run has left, but for the time it took."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from thaw.runs.files import read_rows

    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    results = json.loads((run / "metrics.json").read_text())
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        **{name: last[name] for name in STATE},
        "order": last["order"],
        "rows": [row for row in map(_untimed, read_rows(run / "metrics.csv")) if row.keys() - {"epoch", "step"}],
        "tensorboard": {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
            if not name.startswith(TIMED) and name != "epoch"  # which is logged with all others, so also with these
        },
        "pictures": {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]},
        "results": {**results, "seconds": 0},
    }


def _untimed(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if value and not name.startswith(TIMED)}


def difference(a: Any, b: Any, where: str = "") -> str:
    """Say where two nested values differ first; empty if they are equal to the last bit."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if torch.equal(a, b) else where
    pairs: list[tuple[Any, Any, Any]] | None = None
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        pairs = [(key, a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = list(zip(range(len(a)), a, b, strict=True))
    if pairs is not None:
        return next(filter(None, (difference(x, y, f"{where}/{key}") for key, x, y in pairs)), "")
    return "" if type(a) is type(b) and a == b else f"{where}: {str(a)[:99]} and {str(b)[:99]}"


def torture_ranks(folder: Path, count: int, generator: random.Random) -> int:
    """Train in two processes and kill the command that started them, one of them, or all three, at random times.

    Returns:
        The number of runs that ended differently.
    """
    overrides = configuration(folder, "image", 0, True)
    overrides += ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "+trainer.enable_progress_bar=false")
    overrides = tuple(dict.fromkeys(overrides))
    began = time.monotonic()
    assert command(folder / "undisturbed", overrides, None) == 0
    seconds, undisturbed = time.monotonic() - began, results_of(folder / "undisturbed")
    failed, starts = 0, 0
    for _ in range(count):
        run = folder / "ranks"
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for number in range(MOST_STARTS):
            starts += 1
            moment = generator.uniform(0.3, 0.95) * seconds if number < 2 else None
            if command(run, overrides, moment, generator.choice(VICTIMS)) == 0:
                break
        if differs := difference(results_of(run), undisturbed):
            print(f"two processes: {differs}", flush=True)
            failed += 1
        shutil.rmtree(run)
    print(f"two processes: {count - failed} of {count} ended bit-identical, after {starts} starts", flush=True)
    return failed


def command(run: Path, overrides: Sequence[str], kill_after: float | None, victim: str = "") -> int:
    """Run the train command as a user types it and return its exit code.

    Args:
        run: the run folder.
        overrides: its overrides.
        kill_after: seconds until the kill; None for no kill.
        victim: what is killed, one of VICTIMS.

    Raises:
        AssertionError: a process that the command started outlives it.
    """
    arguments = [sys.executable, "-m", "thaw.train", *overrides, f"run_folder={run}", "resume=auto"]
    with (run.parent / "output.txt").open("a") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
        try:
            return process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            started = [pid for pid in processes_of(run) if pid != process.pid]
            for pid in {"command": [process.pid], "process": started[:1], "all": [process.pid, *started]}[victim]:
                with suppress(ProcessLookupError):  # it may have just ended
                    os.kill(pid, signal.SIGKILL)
            return process.wait()
        finally:
            deadline = time.monotonic() + 60
            while processes_of(run):
                assert time.monotonic() < deadline, "a process outlives the command"
                time.sleep(0.1)


def processes_of(run: Path) -> list[int]:
    """Process ids of the command and of the two processes that it started."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if f"run_folder={run} " in line]


def make_data(folder: Path) -> None:
    """Write 96 noisy images of three colours, and a table of 96 texts on three topics."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    topics = {
        "sea": "wave salt ship shore tide",
        "wood": "tree leaf moss root path",
        "town": "street house bus shop lamp",
    }
    rows = []
    for channel, (name, words) in enumerate(topics.items()):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(32):
            pixels = generator.integers(0, 120, (24, 30, 3), dtype=np.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels).save(folder / f"photos/{name}/{number}.png")
            text = generator.choice([*words.split(), "the", "a", "some", "near"], 3 + number % 9)
            rows.append(f"{' '.join(text)},{name}")
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")


if __name__ == "__main__":
    main()
