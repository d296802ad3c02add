"""What benchmarks share: a process per contender, clocks, how others fine-tune, and cells of tables.

N: samples, C: classes.
"""

import gc
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Outcome = dict[str, Any]
"""Measurements of one run, by name."""


class Clock:
    """Takes the times of one run, which begins when the clock is made.

    Args:
        frozen_epochs: number of epochs in which only the head trains; they come first.
        full_epochs: number of epochs in which everything trains.
    """

    def __init__(self, frozen_epochs: int, full_epochs: int):
        self.frozen_epochs, self.full_epochs = frozen_epochs, full_epochs
        self.begin = time.perf_counter()
        self.fit: float | None = None
        """Time at which training was started; None if that is the first mark."""
        self.marks: list[float] = []
        """Times of the start of the first epoch and of the end of each."""
        self.loader_processes = 0
        """Largest number of child processes alive at a mark."""

    def mark(self) -> None:
        """Note the time: call it at the start of the first epoch and at the end of each."""
        self.marks.append(time.perf_counter())
        self.loader_processes = max(self.loader_processes, len(multiprocessing.active_children()))

    def outcome(self, accuracy: float) -> Outcome:
        """Return the seconds of all frozen epochs, of one frozen and one full epoch, and of the whole run so far."""
        seconds = [later - earlier for earlier, later in pairwise(self.marks)]
        assert len(seconds) == self.frozen_epochs + self.full_epochs, f"{len(seconds)} epochs were trained"
        # The first epoch of each kind also starts loader processes, allocates memory and picks kernels.
        frozen, full = seconds[: self.frozen_epochs], seconds[self.frozen_epochs :]
        return {
            "all_frozen": self.marks[self.frozen_epochs] - (self.marks[0] if self.fit is None else self.fit),
            "frozen": statistics.median(frozen[1:] or frozen) if frozen else None,
            "full": statistics.median(full[1:] or full) if full else None,
            "total": time.perf_counter() - self.begin,
            "accuracy": accuracy,
            "loader_processes": self.loader_processes,
        }


def fit(clock: Clock, trainer: Any, *arguments: Any) -> None:
    """Call Lightning's `trainer.fit(*arguments)` and time its epochs."""
    from lightning import Callback

    class Marks(Callback):
        def on_train_start(self, *_: Any) -> None:
            clock.mark()

        def on_train_epoch_end(self, *_: Any) -> None:
            clock.mark()

    trainer.callbacks.append(Marks())  # last, so that checkpoints are written before the mark
    clock.fit = time.perf_counter()
    trainer.fit(*arguments)


def in_own_process(
    script: str, name: str, seed: int, environment: Mapping[str, str], options: Sequence[str] = ()
) -> Outcome | None:
    """Run one contender in a new process: this script with `--only name`.

    Args:
        script: file of the benchmark.
        name: name of the contender.
        seed: seed of the run.
        environment: environment variables to add.
        options: command-line options that replace those of this process.

    Returns:
        The outcome that the process prints as JSON; None if it failed.
    """
    command = [sys.executable, script, *sys.argv[1:], *options, "--only", name, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        message = done.stderr.strip() or f"exit code {done.returncode}"
        print(f"{name} failed: {message.splitlines()[-1]}", file=sys.stderr)
        return None
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(name, seed, outcome, file=sys.stderr)
    return outcome


def peak_memory(loader_processes: int) -> dict[str, float]:
    """Peak memory of this process and its children in MiB."""
    gc.collect()  # ends remaining loader processes: the system reports children only after they have ended
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, child = (resource.getrusage(process).ru_maxrss / 1024 for process in processes)  # Linux gives KiB
    return {"peak_mib": own + loader_processes * child, "own_peak_mib": own, "largest_child_peak_mib": child}


class Scores(NamedTuple):
    """Outputs for the samples of one split."""

    logits: NDArray[Any]
    """(N, C); log-probabilities will do."""
    targets: NDArray[Any]
    """Class indices, (N,)."""

    @property
    def accuracy(self) -> float:
        """Share of samples with the right class."""
        return float((self.logits.argmax(axis=1) == self.targets).mean())


def outputs(function: Callable[[Any], Any], batches: Any) -> Scores:
    """What a function of inputs, such as a network in evaluation mode, gives for batches of inputs and classes."""
    import torch

    with torch.no_grad():
        pairs = [(function(inputs), labels) for inputs, labels in batches]
    logits, targets = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    return Scores(logits, targets)


def probe_then_full(
    network: Any, batches: Any, epochs: tuple[int, int], rates: tuple[float, float], epoch_ends: Callable[[], None]
) -> None:
    """Train with a loop of plain PyTorch in fp32: the head at one rate, then everything at another.

    `network` has the parts `backbone` and `head`. `epoch_ends` is called after each epoch.
    """
    import torch
    from torch.nn.functional import cross_entropy

    phases = ((True, network.head.parameters()), (False, network.parameters()))
    for (frozen, parameters), count, lr in zip(phases, epochs, rates, strict=True):
        network.backbone.requires_grad_(not frozen)
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
        for _ in range(count):
            network.train()
            if frozen:
                network.backbone.eval()
            for inputs, labels in batches:
                loss = cross_entropy(network(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            epoch_ends()


def backbone_finetuning(
    network: Any, epochs: tuple[int, int], rates: tuple[float, float], epoch_ends: Callable[[float], None]
) -> tuple[Any, Any]:
    """Make Lightning's trainer with its callback BackboneFinetuning, and a module.

    `network` has the parts `backbone` and `head`. `epoch_ends` is called with the accuracy after each validation.
    """
    import torch
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import BackboneFinetuning
    from torch.nn.functional import cross_entropy

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.backbone = network, network.backbone  # the callback freezes `backbone`
            self.right: list[Any] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.right.append(self.network(batch[0]).argmax(1) == batch[1])

        def on_validation_epoch_end(self) -> None:
            right, self.right = torch.cat(self.right), []
            if not self.trainer.sanity_checking:
                epoch_ends(right.float().mean().item())

        def configure_optimizers(self) -> Any:
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return torch.optim.AdamW(trained, lr=rates[0], weight_decay=0.01)

    trainer = Trainer(
        max_epochs=sum(epochs),
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=epochs[0], backbone_initial_lr=rates[1])],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.mkdtemp(),
    )
    return trainer, Module()


def fastai_learner(data: Any, network: Any, head: Any, epoch_ends: Callable[[float], None]) -> Any:
    """Make fastai's Learner of a network with a new `head`, quiet. `epoch_ends` is called with each accuracy."""
    import fastai.callback.schedule  # noqa: F401  # adds fine_tune to Learner
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.torch_core import params
    from torch import nn

    class Epochs(Callback):
        order = 60  # after the recorder's 50

        def after_epoch(self) -> None:
            epoch_ends(float(self.recorder.values[-1][-1]))

    new = {id(parameter) for parameter in params(head)}

    def split(network: Any) -> list[list[Any]]:
        return [[parameter for parameter in params(network) if id(parameter) not in new], params(head)]

    loss = nn.CrossEntropyLoss()
    learner = Learner(data, network, loss_func=loss, metrics=accuracy, splitter=split, cbs=[Epochs()])
    learner.remove_cb(ProgressCallback)
    return learner


def encoded(data: Any, indices: NDArray[np.int64], tokenizer: Any) -> list[dict[str, Any]]:
    """Texts of a TextDataModule, as Hugging Face's Trainer takes them."""
    tokens = tokenizer([data.texts[i] for i in indices], truncation=True, max_length=data.max_length_tokens)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": int(data.targets[i])}
        for ids, mask, i in zip(tokens["input_ids"], tokens["attention_mask"], indices, strict=True)
    ]


def hugging_face_trainer(
    data: Any,
    name: str,
    epochs: int,
    rate: float,
    seed: int,
    folder: str,
    epoch_ends: Callable[[float], None] = lambda accuracy: None,
    **arguments: Any,
) -> tuple[Any, Any]:
    """Make Hugging Face's Trainer, as its documentation does, and the tokenizer.

    Args:
        data: the TextDataModule, split.
        name: folder or hub id of the network.
        epochs: number of epochs, all of which train everything.
        rate: highest learning rate.
        seed: seed of the head and of the order of samples.
        folder: where it writes checkpoints.
        epoch_ends: is called with the accuracy after each validation.
        **arguments: more of TrainingArguments.
    """
    import transformers

    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        name, num_labels=data.num_classes, trust_remote_code=False
    )

    def measure(output: Any) -> dict[str, float]:
        accuracy = Scores(*output).accuracy
        epoch_ends(accuracy)
        return {"accuracy": accuracy}

    settings = transformers.TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        learning_rate=rate,
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
    train, val = (encoded(data, data.parts[split], tokenizer) for split in ("train", "val"))
    trainer = transformers.Trainer(
        network,
        settings,
        train_dataset=train,
        eval_dataset=val,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=measure,
    )
    return trainer, tokenizer


def tf_idf_classifier() -> Any:
    """Make logistic regression on TF-IDF of words and pairs of words, and of 2 to 4 characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(ngram_range=(2, 4), sublinear_tf=True, analyzer="char_wb")
    return make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=1000))


def median(runs: Sequence[Outcome], name: str) -> float | None:
    """Return the median of one measurement over runs; None if a run does not have it."""
    values = [run[name] for run in runs]
    return None if not values or None in values else statistics.median(values)


def cell(value: float | None, digits: int) -> str:
    """Format a number for a table; "-" stands for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def accuracies(runs: Sequence[Outcome], name: str = "accuracy") -> str:
    """Format mean and standard deviation of an accuracy over runs."""
    values = [run[name] for run in runs]
    spread = f" ± {statistics.stdev(values):.3f}" if len(runs) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
