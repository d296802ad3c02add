"""Measure what epochs with a frozen backbone cost: thaw with and without a cache, and other ways to train.

    python scripts/benchmark_frozen.py --data <folder with train/ and val/> --weights <file>
    python scripts/benchmark_frozen.py ... --full-epochs 0 --repeat-data 4    # the frozen epochs alone, on more data

Data, network and training are those of benchmark_images.py. The contenders:

- cold, warm, off: thaw with an empty cache, with the cache that `cold` filled for the same seed, and without a cache
- hand, lightning, fastai: a loop of plain PyTorch, Lightning's BackboneFinetuning, fastai's fine_tune
- limit: the lowest possible cost. Every sample is decoded, transformed and sent through the frozen network once (a
  training sample once per view, see --views); then a minimal loop trains the head on the features

Each run is a process of its own, and contenders take turns. The table shows medians over the seeds, and the mean
accuracy on val/:

- frozen s: all frozen epochs together, from the call of `fit` (hand, fastai, limit: from before the first batch) to the
  end of the last one. It includes the sanity check, the start of loader processes and filling the cache
- s / frozen epoch, s / full epoch: training and validation of one epoch, without the first epoch of each kind
- total s: from reading the data to the end of training, without imports
- peak MiB: peak resident size of the process, plus that of its largest child times the number of loader processes alive
  at once (at least --workers). An upper bound, because pages that processes share are counted in each
- cache MB: disk blocks that the cache folder takes after the run
- frozen s / limit: ratio of `frozen s` to that of `limit`
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_images import datasets, fastai, hand, lightning, normalisation, parser, pretrained, thaw
from contenders import Clock, Outcome, accuracies, cell, in_own_process, median, peak_memory

CONTENDERS = ("cold", "warm", "off", "hand", "lightning", "fastai", "limit")
FORWARD_BATCH_SIZE = 64
COLUMNS = {"all_frozen": 2, "frozen": 3, "full": 2, "total": 1, "peak_mib": 0, "cache_mb": 1}
"""By key of an outcome, the decimals that its column shows."""
HEADER = """\
| | frozen s | s / frozen epoch | s / full epoch | total s | peak MiB | cache MB | val accuracy | frozen s / limit |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Run all contenders and print the tables; with `--only`, run one and print its outcome as JSON."""
    choices = arguments()
    if choices.only is not None:
        outcome = contender(choices.only)(choices)
        print(json.dumps({**outcome, **peak_memory(max(outcome["loader_processes"], choices.workers))}))
        return
    results: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS if name in choices.contenders}
    with tempfile.TemporaryDirectory() as folder:
        data = repeated(choices.data, choices.repeat_data, Path(folder))
        for seed in range(choices.seeds):
            take_turns(seed, ["--data", data, "--repeat-data", "1"], results)
    print(table(results))
    print("\n" + ratios(results))


def arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    options = parser(CONTENDERS, __doc__)
    options.add_argument("--off", nargs="*", default=["caching=off"], help="overrides that turn thaw's cache off")
    options.add_argument("--views", type=int, default=4, help="data.views of the thaw runs; `limit` does as much")
    options.add_argument("--repeat-data", type=int, default=1, help="number of copies of each training image")
    choices = options.parse_args()
    if choices.frozen_epochs < 1 or choices.views < 1 or choices.repeat_data < 1:
        options.error("--frozen-epochs, --views and --repeat-data are at least 1")
    if "warm" in choices.contenders and "cold" not in choices.contenders:
        options.error("warm reads the cache that cold filled: type --contenders cold warm ...")
    return choices


def contender(name: str) -> Callable[[argparse.Namespace], Outcome]:
    """Return the function that runs a contender."""
    runs_of_thaw = {"cold": thaw, "warm": thaw, "off": off}
    return {**runs_of_thaw, "hand": hand, "lightning": lightning, "fastai": fastai, "limit": limit}[name]


def take_turns(seed: int, options: list[str], results: dict[str, list[Outcome]]) -> None:
    """Run every contender once and append the outcomes to `results`."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "temporary"  # $TMPDIR of the runs, so that their files are deleted, too
        temporary.mkdir()
        filled = False
        for name in results:
            if name == "warm" and not filled:
                print("warm is left out, because cold failed", file=sys.stderr)
                continue
            cache = Path(folder) / ("cache" if name in ("cold", "warm") else f"cache_{name}")
            environment = {"THAW_CACHE": str(cache), "TMPDIR": str(temporary)}
            outcome = in_own_process(__file__, name, seed, environment, options)
            if outcome is not None:
                filled = filled or name == "cold"
                results[name].append({**outcome, "cache_mb": disk_mb(cache)})


def disk_mb(folder: Path) -> float:
    """Megabytes of disk blocks below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


def repeated(data: str, times: int, folder: Path) -> str:
    """Copy the data into `folder` with `times` copies of each training image, and return the folder.

    The copies differ in the number of zero bytes behind the end of the image, so that none is taken for another.
    """
    if times == 1:
        return data
    for file in sorted((Path(data) / "train").rglob("*")):
        if file.is_file():
            target = folder / file.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            for copy in range(times):
                target.with_stem(f"{file.stem}_copy{copy}").write_bytes(file.read_bytes() + bytes(copy))
    (folder / "val").symlink_to((Path(data) / "val").resolve())
    return str(folder)


def table(results: dict[str, list[Outcome]]) -> str:
    """Lay out the outcomes as a Markdown table, one row per contender."""
    limit = median(results.get("limit", []), "all_frozen")
    lines = [HEADER]
    for name, runs in results.items():
        if runs:
            cells = [name, *(cell(median(runs, key), digits) for key, digits in COLUMNS.items()), accuracies(runs)]
            frozen = median(runs, "all_frozen")
            cells.append(cell(frozen / limit if frozen and limit else None, 2))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(results: dict[str, list[Outcome]]) -> str:
    """Say what share of the others' time thaw takes."""
    lines = []
    for title, key in (("whole run", "total"), ("frozen epochs", "all_frozen")):
        parts = []
        for name in ("cold", "warm"):
            ours = median(results.get(name, []), key)
            others = {other: median(results.get(other, []), key) for other in ("lightning", "hand")}
            shares = [f"{ours / theirs:.2f} x {other}" for other, theirs in others.items() if ours and theirs]
            if shares:
                parts.append(f"{name}: {', '.join(shares)}")
        lines.append(f"{title} " + "; ".join(parts or ["-"]))
    return "\n".join(lines)


def off(choices: argparse.Namespace) -> Outcome:
    """Train with thaw without its cache."""
    choices.thaw = [*choices.thaw, *choices.off]
    return thaw(choices)


def limit(choices: argparse.Namespace) -> Outcome:
    """Compute all features once, then train the head alone in a loop without Lightning, checkpoints and metrics."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    torch.manual_seed(choices.seed)
    clock = Clock(choices.frozen_epochs, 0)
    body, width = pretrained(choices)
    views, val, classes = features(choices, body, clock)
    head, accuracy = nn.Linear(width, classes), 0.0
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
    for epoch in range(choices.frozen_epochs):
        inputs, labels = views[epoch % choices.views]
        for batch in torch.randperm(len(labels)).split(choices.batch_size):
            loss = cross_entropy(head(inputs.index_select(0, batch)), labels.index_select(0, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            val_accuracy = (head(val[0]).argmax(1) == val[1]).float().mean().item()
        accuracy = max(accuracy, val_accuracy)
        clock.mark()
    return {**clock.outcome(accuracy), "total": None}


def features(choices: argparse.Namespace, body: Any, clock: Clock) -> tuple[list[Any], Any, int]:
    """Compute the features of all samples in one pass of one DataLoader.

    Images stay uint8 until they are in batches, as in thaw.

    Returns:
        Features (N, D) with labels (N,) for each view of the training samples, the same for val, and the number of
        classes.
    """
    import torch
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision.transforms import v2

    body.eval().to(memory_format=torch.channels_last)
    train, val = datasets(choices, v2.PILToTensor())
    normalise, outputs, labels = normalisation(choices), [], []
    clock.mark()
    samples: ConcatDataset[Any] = ConcatDataset([train] * choices.views + [val])
    with torch.inference_mode():
        for images, targets in DataLoader(samples, FORWARD_BATCH_SIZE, num_workers=choices.workers):
            outputs.append(body(normalise(images)))
            labels.append(targets)
    sizes = [len(train)] * choices.views + [len(val)]
    parts = list(zip(torch.cat(outputs).split(sizes), torch.cat(labels).split(sizes), strict=True))
    return parts[:-1], parts[-1], len(train.classes)


if __name__ == "__main__":
    main()
