"""How well methods do that train no network: a run that does not beat them has gained nothing.

N: samples, M: samples to measure, D: features, C: classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import normalize

from thaw.caching.data_module import CachedDataModule
from thaw.data.pairs import as_one
from thaw.manifest import replacing
from thaw.reporting.harmless import harmless
from thaw.runs.files import BASELINES_FILE
from thaw.types import BatchRequest

MOST_SAMPLES = 20_000
"""Samples to learn from, and samples to measure; of more, these are drawn at random."""
MOST_NUMBERS = 4_000_000
"""Coefficients of the logistic regression, over all classes: its solver takes 200 bytes for each."""
NEIGHBOURS = 5

Features = NDArray[np.floating]
Targets = NDArray[np.integer]


def feature_baselines(features: Features, targets: Targets, test: Features, test_targets: Targets) -> dict[str, float]:
    """Accuracy of two classifiers on features of the pretrained backbone: k nearest neighbours and class means.

    Both measure angles between features.

    Args:
        features: of training samples, (N, D).
        targets: their class indices, (N,).
        test: features to classify, (M, D).
        test_targets: their class indices, (M,).
    """
    classes = np.unique(targets)
    if len(classes) < 2:
        return {}
    train, measured = normalize(features), normalize(test)
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, targets)
    means = normalize([train[targets == number].mean(axis=0) for number in classes])
    nearest = classes[(measured @ means.T).argmax(axis=1)]
    return {
        "k-NN on pretrained features": float(neighbours.score(measured, test_targets)),
        "class means of pretrained features": float((nearest == test_targets).mean()),
    }


def text_baseline(
    texts: Sequence[str], targets: Targets, test: Sequence[str], test_targets: Targets
) -> dict[str, float]:
    """Accuracy of logistic regression on TF-IDF of words (1-2) and of characters in words (2-4).

    Args:
        texts: N training texts.
        targets: their class indices, (N,).
        test: M texts to classify.
        test_targets: their class indices, (M,).
    """
    if len(np.unique(targets)) < 2:
        return {}
    most = MOST_NUMBERS // len(np.unique(targets)) // 2
    limits: dict[str, Any] = {"sublinear_tf": True, "max_features": min(most, 100_000)}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", **limits)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **limits)
    model = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=200))
    return {"TF-IDF + logistic regression": float(model.fit(list(texts), targets).score(list(test), test_targets))}


class Baselines(Callback):
    """Writes the test accuracy (validation, if there is no test) of the baselines into the run folder at the start.

    Features are taken where the plan begins with a frozen backbone and the cache keeps what it gives: then those of the
    training samples are computed in any case, and those of the test are kept, too. Runs of several processes have none.
    """

    @harmless
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the baselines of a new run."""
        data = trainer.datamodule
        if trainer.global_step or trainer.world_size > 1 or trainer.fast_dev_run:
            return
        parts = data.parts
        split = "test" if len(parts["test"]) else "val"
        rng = np.random.default_rng(0)
        train, measured = (rng.permutation(parts[name])[:MOST_SAMPLES] for name in ("train", split))
        known = (data.targets[train], data.targets[measured])
        baselines: dict[str, float] = {}
        if (texts := data.facts.texts) is not None:
            train_texts, test_texts = ([as_one(texts[index]) for index in indices] for indices in (train, measured))
            baselines |= text_baseline(train_texts, known[0], test_texts, known[1])
        if isinstance(data, CachedDataModule) and data.start("train", 0) == data.prefix.last:
            features = self._features(data, "train", train)
            others = None if features is None else self._features(data, split, measured)
            if features is not None and others is not None:
                baselines |= feature_baselines(features, known[0], others, known[1])
        if baselines:
            content = {"split": split, "accuracy": baselines}
            with replacing(Path(trainer.default_root_dir) / BASELINES_FILE) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _features(self, data: CachedDataModule, split: str, indices: NDArray[np.int64]) -> Features | None:
        """Features (N, D) of samples of a split, as in evaluation; None if none are kept."""
        activations = data.prefix.activations(split, None, data.prefix.last)
        if activations is None:
            return None
        (batch,) = activations.batches([BatchRequest(indices.tolist(), None)])
        assert isinstance(batch.inputs, torch.Tensor)
        return batch.inputs.float().numpy()
