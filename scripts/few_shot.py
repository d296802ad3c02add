"""The few-shot table: test accuracy by labels per class and plan, mean and spread over seeds, as Markdown.

python scripts/few_shot.py                               # the table in docs/few_shot.md
python scripts/few_shot.py --labels 1 --seeds 2          # a part of it
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from thaw.config.command import CONF
from thaw.train import train

# Every column trains for the same epochs (42 can be divided by gradual's six phases and chain_thaw's seven), with the
# same optimizer settings; only scratch has its own rates, from its experiment file. With few labels an epoch is a step.
EPOCHS = {1: 84, 5: 84, 10: 42, 50: 42}
COLUMNS = ("scratch", "head_only", "probe_then_full", "gradual", "chain_thaw")


def choices(column: str, epochs: int) -> list[str]:
    """Overrides that make a column's plan last `epochs`."""
    lengths = {
        "scratch": ["experiment=scratch", f"freezing.epochs={epochs}"],
        "head_only": [f"freezing.epochs={epochs}"],
        "probe_then_full": [f"freezing.probe_epochs={epochs // 6}", f"freezing.full_epochs={epochs - epochs // 6}"],
        "gradual": [f"freezing.epochs_per_stage={epochs // 6}"],
        "chain_thaw": [f"freezing.epochs_per_stage={epochs // 7}"],
    }[column]
    return lengths if column == "scratch" else [f"freezing={column}", *lengths]


def test_accuracy(column: str, labels: int, seed: int, overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONF), version_base="1.3"):
        quiet = ["logger=none", "~callbacks.progress_bar", "~callbacks.model_summary", "~callbacks.early_stopping"]
        quiet += ["+trainer.enable_progress_bar=false", "+trainer.enable_model_summary=false"]
        data = [f"data.labels_per_class={labels}", f"seed={seed}", f"run_folder={folder}/run"]
        cfg = compose("train", [*quiet, *data, *choices(column, EPOCHS[labels]), *overrides])
        return train(cfg)["accuracy/test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="for every run, as for thaw.train")
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
