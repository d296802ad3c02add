"""How long a user waits: `--help`, and `make train`'s first optimizer step against importing torch and Lightning alone.

    python scripts/benchmark_startup.py

Processes of their own, in turn; prints medians and the ratio, run by run.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = "import os, torch, torchvision, lightning; os._exit(0)"  # leaves as abruptly as the other does
# The default run, left at the end of its first optimizer step.
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


def seconds(*command: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    rows: dict[str, list[float]] = {"--help": [], "imports": [], "first step": [], "whole run": []}
    seconds("-c", IMPORTS)  # fills the disk cache
    for _ in range(repeats):
        rows["--help"].append(seconds("-m", "thaw.train", "--help"))
        rows["imports"].append(seconds("-c", IMPORTS))
        rows["first step"].append(seconds("-c", UNTIL_FIRST_STEP))
        rows["whole run"].append(seconds("-m", "thaw.train"))
    ratios = [step / bare for step, bare in zip(rows["first step"], rows["imports"], strict=True)]

    print("| | median s | min | max |\n|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    print(f"\nfirst step / imports: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
