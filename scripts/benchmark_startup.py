"""Measure how long a user waits for `--help`, for the first optimizer step of `make train`, and for the whole run.

The whole run is also measured with all off that only shows what happens: pictures, baselines, speed, report.

    python scripts/benchmark_startup.py

Each measurement is a process of its own, and they take turns. Prints medians and paired ratios.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = "import os, torch, torchvision, lightning; os._exit(0)"  # ends as abruptly as the script below
UNTIL_FIRST_STEP = """
import os
import sys

sys.argv = ["thaw.train"]
import thaw.train
import torch
def stop(optimizer, args, kwargs):
    os._exit(0)
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(stop)
thaw.train.main()
"""
"""The default run, ended after its first optimizer step."""
SHOWS_NOTHING = ("callbacks.pictures=null", "callbacks.baselines=null", "callbacks.speed=null", "report=false")


def seconds(*arguments: str) -> float:
    """Run `python <arguments>` in an empty folder and return how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    rows: dict[str, list[float]] = {
        name: [] for name in ("--help", "imports", "first step", "whole run", "whole run, nothing shown")
    }
    seconds("-c", IMPORTS)  # fills the operating system's file cache
    for _ in range(repeats):
        rows["--help"].append(seconds("-m", "thaw.train", "--help"))
        rows["imports"].append(seconds("-c", IMPORTS))
        rows["first step"].append(seconds("-c", UNTIL_FIRST_STEP))
        rows["whole run"].append(seconds("-m", "thaw.train"))
        rows["whole run, nothing shown"].append(seconds("-m", "thaw.train", *SHOWS_NOTHING))

    print("| | median s | min | max |\n|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    for name, bare in (("first step", "imports"), ("whole run", "whole run, nothing shown")):
        ratios = [value / other for value, other in zip(rows[name], rows[bare], strict=True)]
        print(f"\n{name} / {bare}: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
