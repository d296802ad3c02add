"""Test accuracy and seconds of thaw's plans on texts, beside Hugging Face's Trainer, a GRU from scratch and TF-IDF.

    python scripts/benchmark_texts.py --data <folder of train, val and test tables> --network <Hugging Face folder>

Everyone gets the same texts and rates, batches of 32 and validation after each epoch. Seconds are those of a whole run,
from reading the tables to the test, without imports; contenders take turns, seed by seed. Needs the extra `bench`.
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
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig
from sklearn.metrics import accuracy_score, f1_score

from thaw.config import build
from thaw.config.command import CONF
from thaw.data.text_table import TextTable
from thaw.train import train

QUIET = ("logger=none", "~callbacks.progress_bar", "~callbacks.model_summary", "~callbacks.lr_monitor")
TRAINER_QUIET = ("+trainer.enable_progress_bar=false", "+trainer.enable_model_summary=false")


class Score(NamedTuple):
    epochs: int
    accuracy: float
    macro_f1: float


def thaw(choices: argparse.Namespace, seed: int, plan: list[str], backbone: list[str]) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        cfg = composed(choices, seed, *plan, *backbone, *QUIET, *TRAINER_QUIET, f"run_folder={folder}/run")
        metrics = train(cfg)
        with (Path(folder) / "run/metrics.csv").open(newline="") as file:
            epochs = sum(bool(row["accuracy/train"]) for row in csv.DictReader(file))
    return Score(epochs, metrics["accuracy/test"], metrics["macro_f1/test"])


def pretrained(choices: argparse.Namespace) -> list[str]:
    return ["backbone=huggingface", f"backbone.name={choices.network}", f"optimizer.lr={choices.rate * 10}"]


def head_only(choices: argparse.Namespace, seed: int) -> Score:
    return thaw(choices, seed, ["freezing=head_only", f"freezing.epochs={choices.epochs}"], pretrained(choices))


def full(choices: argparse.Namespace, seed: int) -> Score:
    return thaw(choices, seed, ["freezing=full", f"freezing.epochs={choices.epochs}"], pretrained(choices))


def probe_then_full(choices: argparse.Namespace, seed: int) -> Score:
    epochs = [f"freezing.probe_epochs={choices.probe_epochs}", "freezing.full_lr_scale=1"]
    epochs.append(f"freezing.full_epochs={choices.epochs - choices.probe_epochs}")
    return thaw(choices, seed, ["freezing=probe_then_full", *epochs], pretrained(choices))


def gradual(choices: argparse.Namespace, seed: int) -> Score:
    return thaw(choices, seed, ["freezing=gradual", "freezing.epochs_per_stage=1"], pretrained(choices))


def gru(choices: argparse.Namespace, seed: int) -> Score:
    plan = ["freezing=full", f"freezing.epochs={choices.gru_epochs}"]
    return thaw(choices, seed, plan, ["backbone=gru", *choices.gru])


def hugging_face(choices: argparse.Namespace, seed: int, **arguments: Any) -> Score:
    """Trainer, as its documentation fine-tunes a classifier."""
    import transformers

    data = texts(choices, seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(choices.network)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        choices.network, num_labels=data.num_classes
    )

    def encoded(indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        found = tokenizer([data.texts[i] for i in indices], truncation=True, max_length=choices.max_length_tokens)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": int(data.targets[i])}
            for ids, mask, i in zip(found["input_ids"], found["attention_mask"], indices, strict=True)
        ]

    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            num_train_epochs=choices.epochs,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=32,
            learning_rate=choices.rate,
            warmup_steps=0.1,
            weight_decay=0.01,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            seed=seed,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            **arguments,
        )
        trainer = transformers.Trainer(
            network,
            settings,
            train_dataset=encoded(data.train_indices),
            eval_dataset=encoded(data.splits.val),
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda found: {"accuracy": float((found[0].argmax(1) == found[1]).mean())},
        )
        trainer.train()
        tested: Any = encoded(data.splits.test)
        found: Any = trainer.predict(tested)
    return scored(choices.epochs, found.label_ids, found.predictions.argmax(1))  # it may have sorted them


def hugging_face_by_length(choices: argparse.Namespace, seed: int) -> Score:
    return hugging_face(choices, seed, train_sampling_strategy="group_by_length")


def tf_idf(choices: argparse.Namespace, seed: int) -> Score:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    data = texts(choices, seed)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(ngram_range=(2, 4), sublinear_tf=True, analyzer="char_wb")
    pipeline = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=1000))
    pipeline.fit([data.texts[i] for i in data.train_indices], data.targets[data.train_indices])
    found = pipeline.predict([data.texts[i] for i in data.splits.test])
    return scored(1, data.targets[data.splits.test], found)


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


def composed(choices: argparse.Namespace, seed: int, *overrides: str) -> DictConfig:
    data = ["data=text_table", f"data.table={choices.data}", f"data.max_length_tokens={choices.max_length_tokens}"]
    data += [f"data.labels_per_class={choices.labels_per_class or 'null'}", *choices.also, f"seed={seed}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*data, *overrides])


def texts(choices: argparse.Namespace, seed: int) -> TextTable:
    data = build.data(composed(choices, seed))
    assert isinstance(data, TextTable)
    return data


def scored(epochs: int, truth: NDArray[np.int64], found: NDArray[np.int64]) -> Score:
    return Score(epochs, accuracy_score(truth, found), f1_score(truth, found, average="macro"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--probe-epochs", type=int, default=1)
    parser.add_argument("--gru-epochs", type=int, default=5)
    parser.add_argument("--gru", nargs="*", default=[], help="overrides for it: backbone.units=pieces")
    parser.add_argument("--rate", type=float, default=3e-4, help="of pretrained layers; thaw's new head has 10 x it")
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
