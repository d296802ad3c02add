"""Measure test accuracy by plan and number of labels per class, and print the means over seeds as a Markdown table.

python scripts/few_shot.py                               # the table in docs/few_shot.md
python scripts/few_shot.py --labels 1 --seeds 2          # part of it
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

from configuration import QUIET, configuration

from thaw.train import train

# All columns train for the same number of epochs (42 divides by gradual's six phases and chain_thaw's seven) with the
# same optimizer settings; only scratch has rates of its own, from its experiment file. With few labels an epoch is a
# single step.
EPOCHS = {1: 84, 5: 84, 10: 42, 50: 42}
"""Epochs by number of labels per class."""
COLUMNS = ("scratch", "head_only", "probe_then_full", "gradual", "chain_thaw")


def plan(column: str, epochs: int) -> list[str]:
    """Overrides that choose the plan of a column, `epochs` long."""
    lengths = {
        "scratch": ["experiment=scratch", f"freezing.epochs={epochs}"],
        "head_only": [f"freezing.epochs={epochs}"],
        "probe_then_full": [f"freezing.probe_epochs={epochs // 6}", f"freezing.epochs={epochs}"],
        "gradual": [f"freezing.epochs_per_stage={epochs // 6}"],
        "chain_thaw": [f"freezing.epochs_per_stage={epochs // 7}"],
    }[column]
    return lengths if column == "scratch" else [f"freezing={column}", *lengths]


def test_accuracy(column: str, labels: int, seed: int, overrides: list[str]) -> float:
    """Train once and return the accuracy of the best checkpoint on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["logger=none", "~callbacks.early_stopping", *QUIET]
        data = [f"data.labels_per_class={labels}", f"seed={seed}", f"run_folder={folder}/run"]
        return train(configuration(*quiet, *data, *plan(column, EPOCHS[labels]), *overrides))["accuracy/test"]


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS))
    parser.add_argument("--seeds", type=int, default=5, help="number of runs per cell")
    parser.add_argument("overrides", nargs="*", help="more overrides of thaw.train, for every run")
    options = parser.parse_args()
    logging.getLogger("thaw").setLevel(logging.WARNING)

    started = time.monotonic()
    print("| labels per class | epochs | " + " | ".join(options.columns) + " |")
    print("|---" * (2 + len(options.columns)) + "|", flush=True)
    for labels in options.labels:
        cells = []
        for column in options.columns:
            scores = [test_accuracy(column, labels, seed, options.overrides) for seed in range(options.seeds)]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells.append(f"{statistics.mean(scores):.3f} ± {spread:.3f}")
        print(f"| {labels} | {EPOCHS[labels]} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{options.seeds} seeds, {time.monotonic() - started:.0f} s, {Path(__file__).name}")


if __name__ == "__main__":
    main()
