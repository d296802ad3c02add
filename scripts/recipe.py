"""The recipe's study: thaw with each part of its recipe changed, and its peers, on the same samples at equal epochs.

    python scripts/recipe.py --assets <folder> --encoder <folder of MiniLM>                 # all of it: hours
    python scripts/recipe.py --assets <folder> --sets trashnet_20 --networks mobilenetv2_035 --columns default hand
    python scripts/recipe.py --assets <folder> --column "slow=optimizer.lr=1e-3 schedule=constant"     # one more row
    python scripts/recipe.py --table                                                        # of what was run so far

A cell is a data set x a network x a column x a seed, and runs in a process of its own with one thread and an empty
cache. Its outcome is a line of --out. What is there is not run again; what failed is tried again by the next start.

A set `<name>_<n>` has n training labels of each class. All contenders get the same split and samples; `val` picks their
best epoch, and `test` is measured once. Seconds are those from the start of reading the samples to the end of
training, without imports, and for the peers without finding and checking the files; they compare with --jobs 1 only.
"s to hand's accuracy" is the time after which val was as good as at the hand loop's best epoch with the same seed. Log
loss and calibration error are those of the probabilities that a user gets: thaw's have the run's own temperature. "peak
MiB" counts memory that processes share in each of them.

The folder of assets holds, all optional but what the named sets and networks read:

    images/{sign_digits,sign_digits_small,trashnet}/{train,val,test}/<class>/*      sign_digits_small has no test
    texts/{trec,sms_spam,nsmc}/{train,val,test}.tsv                                 columns label and text, no quoting
    weights/{mobilenetv2_035_timm,tf_efficientnet_lite0_timm,squeezenet1_0_imagenet_dc}.safetensors
    weights/bert_ko_reviews/                                                        a Hugging Face folder

Needs the extra `bench`; peers whose library is missing are left out.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from configuration import QUIET, configuration
from contenders import Outcome, accuracies, median, peak_memory
from contenders import cell as number
from few_shot import EPOCHS

COLUMNS: dict[str, list[str]] = {
    "default": [],
    "no cache": ["caching=off"],
    "EMA": ["callbacks=ema"],
    "label smoothing": ["loss.label_smoothing=0.1"],
    "constant rate": ["schedule=constant"],
    "one cycle": ["schedule=one_cycle"],
    "head only": ["freezing=head_only"],
    "all from the start": ["freezing=full"],
    "not refitted": ["refit=off"],
    "1 view": ["data.views=1"],
    "8 views": ["data.views=8"],
    "BatchNorm trained": ["freezing.batchnorm=train"],
}
"""Overrides of thaw by column of the study."""


class Peer(NamedTuple):
    """A contender that is not thaw."""

    function: str
    """Name of a function of peers.py."""
    kinds: tuple[str, ...] = ("images", "texts")
    """The samples that it can be trained on."""
    needs: str = "torch"
    """A package that thaw does not need."""


PEERS = {
    "hand": Peer("hand"),
    "BackboneFinetuning": Peer("lightning"),
    "fastai": Peer("fastai", ("images",), "fastai"),
    "fastai, its defaults": Peer("fastai_defaults", ("images",), "fastai"),
    "timm's recipe": Peer("timm_recipe", ("images",), "timm"),
    "Trainer": Peer("hugging_face", ("texts",), "accelerate"),
    "logistic regression": Peer("logistic"),
    "k-NN": Peer("nearest"),
    "TF-IDF": Peer("tf_idf", ("texts",)),
}

PHOTOGRAPHS = ("mobilenetv2_035", "squeezenet1_0", "tf_efficientnet_lite0")


class Data(NamedTuple):
    """A data set of the study."""

    kind: str
    """images or texts."""
    networks: tuple[str, ...]
    epochs: tuple[int, int] = (3, 5)
    """Epochs with a frozen backbone, and of everything."""
    few_epochs: tuple[int, int] = (3, 9)
    """The same with a set number of labels per class."""


DATA = {
    "sign_digits": Data("images", PHOTOGRAPHS),
    "sign_digits_small": Data("images", PHOTOGRAPHS),
    "trashnet": Data("images", PHOTOGRAPHS),
    "digits": Data("images", ("glyphs",), (2, 10)),
    "trec": Data("texts", ("MiniLM",), (1, 3)),
    "sms_spam": Data("texts", ("MiniLM",), (1, 3)),
    "nsmc": Data("texts", ("bert_ko_reviews",), (1, 3)),
}
SETS = [name for name in DATA if name != "digits"]
SETS += ["sign_digits_5", "trashnet_5", "digits_1", "digits_5", "digits_10", "digits_50"]
SETS += ["trec_33", "sms_spam_100", "nsmc_100"]  # of 200 labels in all
SHORTENED = {
    ("sign_digits", "tf_efficientnet_lite0"): 40,
    ("trashnet", "tf_efficientnet_lite0"): 60,
    ("trec", "MiniLM"): 75,
    ("sms_spam", "MiniLM"): 400,
}
"""Labels of each class where a run with all of them would take more than three minutes on one core."""
RATES = {"squeezenet1_0": (3e-3, 1e-4), "bert_ko_reviews": (1e-3, 3e-4), "MiniLM": (1e-3, 1e-4)}
"""Rates of the peers by network: of a new head, and of everything."""
IMAGE_RATES = (3e-3, 1e-3)

PRELOADED = multiprocessing.get_context("forkserver")
"""Starts processes from one that has imported the libraries already, which saves 15 seconds a cell."""
PRELOADED.set_forkserver_preload(
    ["thaw.train", "thaw.config.assemble", "thaw.reporting.write", "timm", "transformers", "sklearn"]
)


class Cell(NamedTuple):
    """One run of the study."""

    set: str
    network: str
    column: str
    seed: int
    epochs: tuple[int, int]

    @classmethod
    def of(cls, outcome: Outcome) -> "Cell":
        """The cell of an outcome, which has its fields and more."""
        fields = {name: outcome[name] for name in cls._fields}
        return cls(**{**fields, "epochs": tuple(outcome["epochs"])})


# What to run.


def base_and_labels(name: str) -> tuple[str, int | None]:
    """The data set and the labels per class that the name of a set says: `trashnet_5`."""
    base, _, number = name.rpartition("_")
    return (base, int(number)) if number.isdigit() else (name, None)


def labels_per_class(name: str, network: str) -> int | None:
    """Training labels of each class; None for all."""
    base, labels = base_and_labels(name)
    return labels or SHORTENED.get((base, network))


def epochs_of(name: str) -> tuple[int, int]:
    """Epochs with a frozen backbone, and of everything."""
    base, labels = base_and_labels(name)
    if base == "digits" and labels in EPOCHS:  # as in docs/few_shot.md
        return EPOCHS[labels] // 6, EPOCHS[labels] - EPOCHS[labels] // 6
    return DATA[base].epochs if labels is None else DATA[base].few_epochs


def data_overrides(name: str, network: str, assets: str) -> list[str]:
    """Overrides that choose the samples of a set."""
    base, _ = base_and_labels(name)
    few = f"data.labels_per_class={labels_per_class(name, network) or 'null'}"
    if base == "digits":
        return ["data=digits", few]
    if DATA[base].kind == "images":
        no_test = ["data.test_fraction=0"] if base == "sign_digits_small" else []
        return ["data=image_folder", f"data.root={assets}/images/{base}", "data.num_workers=1", few, *no_test]
    length = f"data.max_length_tokens={128 if base == 'sms_spam' else 64}"
    return ["data=text_table", f"data.table={assets}/texts/{base}", "data.quotes=false", few, length]


def network_overrides(network: str, assets: str, encoder: str | None) -> list[str]:
    """Overrides that choose a network. `encoder`: folder of MiniLM."""
    weights, halves = f"backbone.weights={assets}/weights", "[0.5,0.5,0.5]"
    timm = ["backbone=timm", f"backbone.name={network}", f"{weights}/{network}_timm.safetensors"]
    timm += [f"backbone.mean={halves}", f"backbone.std={halves}"]
    torchvision = ["backbone=torchvision", f"backbone.name={network}", f"{weights}/{network}_imagenet_dc.safetensors"]
    return {
        "glyphs": ["backbone=glyphs"],
        "mobilenetv2_035": [*timm, "backbone.image_size_px=96", "backbone.options={pad_type: same}"],
        "tf_efficientnet_lite0": [*timm, "backbone.image_size_px=128"],
        "squeezenet1_0": [*torchvision, "backbone.image_size_px=96"],
        "bert_ko_reviews": ["backbone=huggingface", f"backbone.name={assets}/weights/bert_ko_reviews"],
        "MiniLM": ["backbone=huggingface", f"backbone.name={encoder}"],
    }[network]


def plan_overrides(column: Sequence[str], epochs: tuple[int, int]) -> list[str]:
    """Overrides that make a column's plan as long as the others; none for a plan whose length it sets itself."""
    chosen = {text.partition("=")[0]: text.partition("=")[2] for text in column}
    plan = chosen.get("freezing", "" if "experiment" in chosen else "probe_then_full")
    if plan == "probe_then_full":
        return [f"freezing.probe_epochs={epochs[0]}", f"freezing.epochs={sum(epochs)}"]
    return [f"freezing.epochs={sum(epochs)}"] if plan in ("head_only", "full", "surgical") else []


def cells(choices: argparse.Namespace) -> Iterator[Cell]:
    """All cells that were asked for, seed by seed."""
    for seed in range(choices.seeds):
        for name in choices.sets:
            data = DATA[base_and_labels(name)[0]]
            epochs = tuple(choices.epochs or epochs_of(name))
            for network in [network for network in data.networks if network in choices.networks]:
                for column in choices.columns:
                    if column not in PEERS or data.kind in PEERS[column].kinds:
                        yield Cell(name, network, column, seed, epochs)


# Running it.


def run(cell: Cell, choices: argparse.Namespace) -> Outcome:
    """Run one cell in this process."""
    import numpy as np
    import peers

    from thaw.reporting.calibration import calibration
    from thaw.tasks.outputs import ClassOutputs

    where = data_overrides(cell.set, cell.network, choices.assets)
    where += [*network_overrides(cell.network, choices.assets, choices.encoder), f"seed={cell.seed}"]
    if cell.column in PEERS:
        problem = peers.Problem(configuration(*where), cell.epochs, RATES.get(cell.network, IMAGE_RATES))
        result = getattr(peers, PEERS[cell.column].function)(problem)
    else:
        column = choices.thaw[cell.column]
        equal = ["callbacks.early_stopping=null", "+callbacks.curve._target_=peers.Curve"]
        quiet = ["logger=none", "report=false", *QUIET, f"run_folder={tempfile.mkdtemp()}/run"]
        plan = plan_overrides(column, cell.epochs)
        result = peers.ours(configuration(*where, *equal, *quiet, *plan, *column))
    split = "test" if "test" in result.scores else "val"
    scores = result.scores[split]
    measured = calibration(ClassOutputs(np.arange(len(scores.targets)), scores.targets, scores.logits))
    return {
        **cell._asdict(),
        "split": split,
        "accuracy": scores.accuracy,
        "val_accuracy": result.scores["val"].accuracy,
        "log_loss": measured.nll,
        "calibration_error": measured.ece,
        "seconds": result.seconds,
        "peak_mib": peak_memory(result.loader_processes)["peak_mib"],
        "curve": result.curve,
    }


def in_process(cell: Cell, choices: argparse.Namespace) -> Outcome | None:
    """Run one cell in a process of its own; None if it failed."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, PRELOADED) as process:
        try:
            return process.submit(in_folder, cell, choices, folder).result()
        except Exception as error:
            print(f"{cell.column} failed: {error!r}", file=sys.stderr)
            return None


def in_folder(cell: Cell, choices: argparse.Namespace, folder: str) -> Outcome:
    """Run one cell in this process, which writes into `folder` only."""
    os.environ["THAW_CACHE"], tempfile.tempdir = f"{folder}/cache", folder
    return run(cell, choices)


def run_all(missing: Sequence[Cell], choices: argparse.Namespace) -> None:
    """Run cells, some at once, and add their outcomes to the file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(choices.jobs) as pool:
        waiting = {pool.submit(in_process, cell, choices): cell for cell in missing}
        for done, future in enumerate(as_completed(waiting), start=1):
            outcome, cell = future.result(), waiting[future]
            if outcome is not None:
                with choices.out.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(outcome) + "\n")
            said = "failed" if outcome is None else f"{outcome['accuracy']:.3f}, {outcome['seconds']:.1f} s"
            name = f"{cell.set}, {cell.network}, {cell.column}, seed {cell.seed}"
            print(f"{done} of {len(missing)}: {name}: {said}", flush=True)


def read(file: Path) -> list[Outcome]:
    """The outcomes of all cells that were run."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


# Tables.

Runs = Mapping[str, Sequence[Outcome]]
"""Outcomes by column."""
HEADER = """\
| | {split} accuracy | val accuracy | log loss | calibration error | s | s to hand's accuracy | peak MiB | seeds |
|---|---|---|---|---|---|---|---|---|"""


def tables(outcomes: Sequence[Outcome]) -> str:
    """One Markdown table for each set and network, and one of the default beside the best peer."""
    groups: dict[tuple[str, str, tuple[int, int]], dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        cell = Cell.of(outcome)
        groups.setdefault((cell.set, cell.network, cell.epochs), {}).setdefault(cell.column, []).append(outcome)
    parts = [f"{title(*group, runs)}\n\n{table(runs)}" for group, runs in groups.items()]
    return "\n\n".join([*parts, f"### Default and best peer\n\n{comparison(groups)}"])


def title(name: str, network: str, epochs: tuple[int, int], runs: Runs) -> str:
    """Heading of a table, and what is particular about the set."""
    base, labels = base_and_labels(name)
    remarks = [f"{labels} labels of each class"] if labels else []
    if not labels and (labels := SHORTENED.get((base, network))):
        remarks.append(f"shortened to {labels} labels of each class")
    if any(run["split"] == "val" for column in runs.values() for run in column):
        remarks.append("no test split: all is measured on val, which also picks the epoch and thaw's temperature")
    heading = f"### {base}, {network}, {epochs[0]} + {epochs[1]} epochs"
    return "\n\n".join([heading, *(["; ".join(remarks)] if remarks else [])])


def table(runs: Runs) -> str:
    """One row per column of the study, thaw's first."""
    lines = [HEADER.format(split=next(iter(runs.values()))[0]["split"])]
    order = [*PEERS]
    for name in sorted(runs, key=lambda column: order.index(column) if column in PEERS else -1):
        own = runs[name]
        cells = [accuracies(own), accuracies(own, "val_accuracy")]
        cells += [number(median(own, key), 3) for key in ("log_loss", "calibration_error")]
        times = times_to_hand(own, runs.get("hand", []))
        known = [time for time in times if time is not None]
        some = f" ({len(known)} of {len(times)})" if 0 < len(known) < len(times) else ""
        cells += [number(median(own, "seconds"), 1), number(statistics.median(known) if known else None, 1) + some]
        cells += [number(median(own, "peak_mib"), 0), str(len(own))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def times_to_hand(runs: Sequence[Outcome], hand: Sequence[Outcome]) -> list[float | None]:
    """Seconds in which each run reached the hand loop's accuracy on val, of the same seed; None if it did not."""
    wanted = {run["seed"]: run["val_accuracy"] for run in hand}
    return [
        next((seconds for seconds, accuracy in run["curve"] if accuracy > wanted[run["seed"]] - 1e-6), None)
        for run in runs
        if run["seed"] in wanted
    ]


def comparison(groups: Mapping[tuple[str, str, tuple[int, int]], Runs]) -> str:
    """The default beside the peer with the best mean accuracy, and its time beside the hand loop's."""
    lines = ["| | default | best peer | | difference | s to hand's accuracy / hand's s |", "|---|---|---|---|---|---|"]
    differences = []
    for (name, network, _), runs in groups.items():
        means = {column: statistics.mean(run["accuracy"] for run in own) for column, own in runs.items()}
        others = {column: mean for column, mean in means.items() if column in PEERS}
        if "default" not in means or not others:
            continue
        best = max(others, key=others.__getitem__)
        differences.append(means["default"] - others[best])
        times, whole = times_to_hand(runs["default"], runs.get("hand", [])), median(runs.get("hand", []), "seconds")
        reached = [time for time in times if time is not None]
        share = statistics.median(reached) / whole if whole and len(reached) == len(times) else None
        shown = f"{best} | {others[best]:.3f} | {differences[-1]:+.3f} | {number(share, 2)}"
        lines.append(f"| {name}, {network} | {means['default']:.3f} | {shown} |")
    if differences:
        lines.append(f"| mean | | | | {statistics.mean(differences):+.3f} | |")
    return "\n".join(lines)


# The command line.


def set_name(text: str) -> str:
    """Check the name of a set."""
    if base_and_labels(text)[0] not in DATA:
        known = ", ".join(DATA)
        raise argparse.ArgumentTypeError(f"{text} is none of {known}, nor one of these with a number: trashnet_5")
    return text


def named_column(text: str) -> tuple[str, list[str]]:
    """Split `name=override override`."""
    name, _, overrides = text.partition("=")
    if not name or "=" not in overrides:
        raise argparse.ArgumentTypeError(f'{text} is not like "slow=optimizer.lr=1e-3 schedule=constant"')
    return name, overrides.split()


def arguments() -> argparse.Namespace:
    """Parse and check the command line. The attribute `thaw` holds the overrides of each column of thaw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks = list(dict.fromkeys(network for data in DATA.values() for network in data.networks))
    parser.add_argument("--assets", help="folder of data sets and weights, see above")
    parser.add_argument("--encoder", help="Hugging Face folder of MiniLM (all-MiniLM-L6-v2)")
    parser.add_argument("--sets", nargs="+", type=set_name, default=SETS)
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks)
    parser.add_argument("--columns", nargs="+", help="of thaw and of peers; all if left out")
    parser.add_argument(
        "--column", action="append", type=named_column, default=[], help="a column more: name=overrides"
    )
    parser.add_argument("--epochs", nargs=2, type=int, help="frozen and full epochs, in place of each set's own")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs per column")
    parser.add_argument("--jobs", type=int, default=2, help="cells that run at once")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the tables, and run nothing")
    choices = parser.parse_args()
    if choices.assets is None and not choices.table:
        parser.error("--assets <folder> is needed, or --table")
    choices.thaw = {**COLUMNS, **dict(choices.column)}
    columns = [*choices.thaw, *PEERS]
    if unknown := [column for column in choices.columns or [] if column not in columns]:
        parser.error(f"--columns: {', '.join(unknown)} is none of {', '.join(columns)}")
    choices.columns = choices.columns or columns
    return choices


def leave_out(choices: argparse.Namespace) -> None:
    """Take out what cannot run here, and say so."""
    for name in [column for column in choices.columns if column in PEERS and find_spec(PEERS[column].needs) is None]:
        print(f'{name} is left out, without {PEERS[name].needs}: type pip install -e ".[bench]"', file=sys.stderr)
        choices.columns.remove(name)
    if "MiniLM" in choices.networks and choices.encoder is None:
        print("MiniLM is left out: type --encoder <its Hugging Face folder>", file=sys.stderr)
        choices.networks = [network for network in choices.networks if network != "MiniLM"]


def main() -> None:
    """Run all cells that are missing; with `--table`, print the tables."""
    choices = arguments()
    if choices.table:
        print(tables(read(choices.out)))
    else:
        leave_out(choices)
        asked, done = list(cells(choices)), {Cell.of(outcome) for outcome in read(choices.out)}
        missing = [cell for cell in asked if cell not in done]
        print(f"{len(asked) - len(missing)} of {len(asked)} cells are in {choices.out}", flush=True)
        run_all(missing, choices)


if __name__ == "__main__":
    main()
