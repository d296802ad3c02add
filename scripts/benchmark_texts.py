"""Compare thaw's plans on texts with Hugging Face's Trainer, a GRU trained from scratch, and TF-IDF.

    python scripts/benchmark_texts.py --data <folder of train, val and test tables> --network <Hugging Face folder>

All contenders get the same texts and learning rates, batches of 32 and a validation after each epoch. The table shows
test accuracy, macro F1 and the median seconds of a whole run: from reading the tables to the end of the test, without
imports. Contenders take turns, seed by seed. Hugging Face's Trainer needs the extra `bench`.
"""

import argparse
import csv
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from configuration import QUIET, configuration
from contenders import encoded, hugging_face_trainer, tf_idf_classifier
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from thaw.config.assemble import split_data
from thaw.data.text_module import TextDataModule
from thaw.train import train


class Score(NamedTuple):
    """Results of one run on the test split."""

    epochs: int
    accuracy: float
    macro_f1: float


def thaw(choices: argparse.Namespace, seed: int, plan: list[str], backbone: list[str]) -> Score:
    """Train with thaw."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["logger=none", "~callbacks.lr_monitor", *QUIET, f"run_folder={folder}/run"]
        metrics = train(configuration(*data_overrides(choices, seed), *plan, *backbone, *quiet))
        with (Path(folder) / "run/metrics.csv").open(newline="") as file:
            epochs = sum(bool(row["accuracy/train"]) for row in csv.DictReader(file))
    return Score(epochs, metrics["accuracy/test"], metrics["macro_f1/test"])


def pretrained(choices: argparse.Namespace) -> list[str]:
    """Overrides that choose the pretrained network. Its rate is a tenth of the new head's, see optimizer.rates."""
    return ["backbone=huggingface", f"backbone.name={choices.network}", f"optimizer.lr={choices.rate * 10}"]


def head_only(choices: argparse.Namespace, seed: int) -> Score:
    """Train the head on a frozen backbone."""
    return thaw(choices, seed, ["freezing=head_only", f"freezing.epochs={choices.epochs}"], pretrained(choices))


def full(choices: argparse.Namespace, seed: int) -> Score:
    """Train everything from the first step."""
    return thaw(choices, seed, ["freezing=full", f"freezing.epochs={choices.epochs}"], pretrained(choices))


def probe_then_full(choices: argparse.Namespace, seed: int) -> Score:
    """Train the head, then everything."""
    epochs = [
        f"freezing.probe_epochs={choices.probe_epochs}",
        f"freezing.epochs={choices.epochs}",
        "freezing.full_lr_scale=1",
    ]
    return thaw(choices, seed, ["freezing=probe_then_full", *epochs], pretrained(choices))


def gradual(choices: argparse.Namespace, seed: int) -> Score:
    """Unfreeze one more stage in each epoch."""
    return thaw(choices, seed, ["freezing=gradual", "freezing.epochs_per_stage=1"], pretrained(choices))


def gru(choices: argparse.Namespace, seed: int) -> Score:
    """Train a GRU from random weights."""
    plan = ["freezing=full", f"freezing.epochs={choices.gru_epochs}"]
    return thaw(choices, seed, plan, ["backbone=gru", *choices.gru])


def hugging_face(choices: argparse.Namespace, seed: int, **arguments: Any) -> Score:
    """Fine-tune with Hugging Face's Trainer, as its documentation does. `arguments` are more of TrainingArguments."""
    data = texts(choices, seed)
    with tempfile.TemporaryDirectory() as folder:
        training = (choices.network, choices.epochs, choices.rate, seed)
        trainer, tokenizer = hugging_face_trainer(data, *training, folder, **arguments)
        trainer.train()
        output = trainer.predict(encoded(data, data.splits.test, tokenizer))
    return scored(choices.epochs, output.label_ids, output.predictions.argmax(1))  # its order may differ from ours


def hugging_face_by_length(choices: argparse.Namespace, seed: int) -> Score:
    """Fine-tune with Hugging Face's Trainer and batches of texts of similar length, as thaw makes them."""
    return hugging_face(choices, seed, train_sampling_strategy="group_by_length")


def tf_idf(choices: argparse.Namespace, seed: int) -> Score:
    """Logistic regression on TF-IDF of words and pairs of words, and of 2 to 4 characters."""
    data = texts(choices, seed)
    classifier = tf_idf_classifier()
    classifier.fit([data.texts[i] for i in data.train_indices], data.targets[data.train_indices])
    predicted = classifier.predict([data.texts[i] for i in data.splits.test])
    return scored(1, data.targets[data.splits.test], predicted)


CONTENDERS: dict[str, Callable[[argparse.Namespace, int], Score]] = {
    "head_only": head_only,
    "full": full,
    "probe_then_full": probe_then_full,
    "gradual": gradual,
    "Trainer": hugging_face,
    "Trainer, by length": hugging_face_by_length,
    "gru": gru,
    "TF-IDF": tf_idf,
}


def data_overrides(choices: argparse.Namespace, seed: int) -> list[str]:
    """Overrides that choose the texts."""
    data = ["data=text_table", f"data.table={choices.data}", f"data.max_length_tokens={choices.max_length_tokens}"]
    return [*data, f"data.labels_per_class={choices.labels_per_class or 'null'}", *choices.also, f"seed={seed}"]


def texts(choices: argparse.Namespace, seed: int) -> TextDataModule:
    """Read and split the texts as thaw does."""
    data = split_data(configuration(*data_overrides(choices, seed)))
    assert isinstance(data, TextDataModule)
    return data


def scored(epochs: int, truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> Score:
    """Compare class indices, both (N,)."""
    return Score(epochs, accuracy_score(truth, predicted), f1_score(truth, predicted, average="macro"))


def main() -> None:
    """Run all contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--probe-epochs", type=int, default=1)
    parser.add_argument("--gru-epochs", type=int, default=5)
    parser.add_argument("--gru", nargs="*", default=[], help="overrides for the GRU: backbone.units=pieces")
    parser.add_argument(
        "--rate", type=float, default=3e-4, help="rate of pretrained layers; thaw's new head gets 10 times that"
    )
    parser.add_argument("--max-length-tokens", type=int, default=64)
    parser.add_argument("--labels-per-class", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--also", nargs="*", default=[], help="more overrides: data.quotes=false")
    choices = parser.parse_args()
    logging.getLogger("thaw").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    scores: dict[str, list[tuple[Score, float]]] = {name: [] for name in choices.contenders}
    for seed in range(choices.seeds):
        for name in choices.contenders:
            begin = time.perf_counter()
            score = CONTENDERS[name](choices, seed)
            scores[name].append((score, time.perf_counter() - begin))
            print(f"seed {seed}, {name}: {score}, {scores[name][-1][1]:.1f} s", flush=True)
    print("\n| | epochs | test accuracy | macro F1 | s |\n|---|---|---|---|---|")
    for name, runs in scores.items():
        accuracies = [score.accuracy for score, _ in runs]
        shown = f"{np.mean(accuracies):.3f} ± {np.std(accuracies):.3f} | {np.mean([s.macro_f1 for s, _ in runs]):.3f}"
        print(f"| {name} | {runs[0][0].epochs} | {shown} | {statistics.median(s for _, s in runs):.1f} |")


if __name__ == "__main__":
    main()
