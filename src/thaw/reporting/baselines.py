"""How well methods do that train no network: a run that does not beat them has gained nothing.

N: samples, M: samples to measure, D: features, C: classes or quantities.
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
from sklearn.pipeline import make_union
from sklearn.preprocessing import normalize

from thaw.caching.data_module import CachedDataModule
from thaw.data.pairs import as_one
from thaw.manifest import replacing
from thaw.reporting.harmless import harmless
from thaw.reporting.kinds import RESULTS
from thaw.reporting.simple_models import SimpleModels
from thaw.runs.files import BASELINES_FILE
from thaw.types import BatchRequest

MOST_SAMPLES = 20_000
"""Samples to learn from, and samples to measure; of more, these are drawn at random."""
MOST_NUMBERS = 4_000_000
"""Coefficients of a linear model, over all classes: its solver takes 200 bytes for each."""

Features = NDArray[np.floating]
Targets = NDArray[Any]


def feature_baselines(
    features: Features, targets: Targets, test: Features, test_targets: Targets, models: SimpleModels
) -> dict[str, float]:
    """Scores of simple models on features of the pretrained backbone, by name. They measure angles between features.

    Args:
        features: of training samples, (N, D).
        targets: their class indices (N,), or a row for each, (N, C).
        test: features to predict from, (M, D).
        test_targets: what is true of them, (M,) or (M, C).
        models: for this kind of labels.
    """
    if len(np.unique(targets, axis=0)) < 2:
        return {}
    train, measured = normalize(features), normalize(test)
    scores = {}
    for name, model in models.on_features.items():
        predicted = model(len(train)).fit(train, targets).predict(measured)
        scores[name] = float(models.measure(test_targets, predicted.reshape(test_targets.shape)))
    return scores


def text_baselines(
    texts: Sequence[str], targets: Targets, test: Sequence[str], test_targets: Targets, models: SimpleModels
) -> dict[str, float]:
    """Scores of simple models on TF-IDF of words (1-2) and of characters in words (2-4), by name.

    Args:
        texts: N training texts.
        targets: their class indices (N,), or a row for each, (N, C).
        test: M texts to predict from.
        test_targets: what is true of them, (M,) or (M, C).
        models: for this kind of labels.
    """
    different = len(np.unique(targets, axis=0))
    if different < 2:
        return {}
    most = MOST_NUMBERS // (targets.shape[1] if targets.ndim == 2 else different) // 2
    limits: dict[str, Any] = {"sublinear_tf": True, "max_features": min(most, 100_000)}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", **limits)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **limits)
    tf_idf = make_union(words, characters)
    train, measured = tf_idf.fit_transform(list(texts)), tf_idf.transform(list(test))
    scores = {}
    for name, model in models.on_texts.items():
        predicted = model().fit(train, targets).predict(measured)
        scores[name] = float(models.measure(test_targets, predicted.reshape(test_targets.shape)))
    return scores


class Baselines(Callback):
    """Writes the test scores (validation, if there is no test) of simple models into the run folder at the start.

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
        models = RESULTS[pl_module.task.outputs].models
        baselines: dict[str, float] = {}
        if (texts := data.facts.texts) is not None:
            train_texts, test_texts = ([as_one(texts[index]) for index in indices] for indices in (train, measured))
            baselines |= text_baselines(train_texts, known[0], test_texts, known[1], models)
        if isinstance(data, CachedDataModule) and data.start("train", 0) == data.prefix.last:
            features = self._features(data, "train", train)
            others = None if features is None else self._features(data, split, measured)
            if features is not None and others is not None:
                baselines |= feature_baselines(features, known[0], others, known[1], models)
        if baselines:
            content = {"split": split, models.measure_name: baselines}
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
