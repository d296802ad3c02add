"""Runs of every kind of data and network, for tests that compare them with and without the cache."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.conftest import TINY
from tests.language import pretrained, texts
from tests.photos import photos
from thaw.caching.prefix import FrozenPrefix
from thaw.types import Batch

Config = Callable[..., DictConfig]

QUIET = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
NONE_STOPS = ("callbacks.early_stopping=null",)
TWICE = ("head", '"*"', "head")
"""The same stages are frozen twice, with other weights."""
PLANS = {
    "head_only": ("freezing=head_only", "freezing.epochs=3"),
    "probe_then_full": ("freezing=probe_then_full", "freezing.probe_epochs=2", "freezing.epochs=3"),
    "gradual": ("freezing=gradual", "freezing.epochs_per_stage=2"),
    "chain_thaw": ("freezing=chain_thaw", "freezing.epochs_per_stage=1"),
    "twice": ("freezing=phases", "freezing.phases=[" + ",".join(f"{{epochs: 1, train: [{t}]}}" for t in TWICE) + "]"),
}


def choices(kind: str, tmp_path: Path) -> list[str]:
    """Of data and of a network that suits them."""
    if kind == "digits":
        return list(TINY)
    if kind == "photographs":
        if not (tmp_path / "photos").exists():
            photos(tmp_path)
        coloured = ("backbone._target_=tests.tiny.backbone", "+backbone.channels=3", "backbone.weights=null")
        files = ("data=image_folder", f"data.root={tmp_path}/photos", "data.num_workers=0", "data.batch_size=5")
        return [*QUIET, *coloured, *files]
    if not (tmp_path / "reviews.csv").exists():
        texts(tmp_path)
    table = [*QUIET, "data=text_table", f"data.table={tmp_path}/reviews.csv", "data.batch_size=8"]
    if kind == "gru":
        return [*table, "backbone=gru", "backbone.hidden_size=8", "backbone.embedding_size=8"]
    if not (tmp_path / kind).exists():
        pretrained(tmp_path / kind, kind)
    return [*table, "backbone=huggingface", f"backbone.name={tmp_path}/{kind}"]


def logged(run: Path) -> dict[tuple[str, str], float]:
    """Every value of metrics.csv, by name and step."""
    with (run / "metrics.csv").open(newline="") as file:
        return {
            (name, row["step"]): float(value) for row in csv.DictReader(file) for name, value in row.items() if value
        }


class Forwards:
    """Counts the batches that went through frozen stages to be kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count = 0
        run = FrozenPrefix.run

        def counted(prefix: FrozenPrefix, batch: Batch, start: int) -> Batch:
            self.count += 1
            return run(prefix, batch, start)

        monkeypatch.setattr(FrozenPrefix, "run", counted)
