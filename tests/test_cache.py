from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.conftest import TINY
from thaw.cache import cache
from thaw.caching.store import entries
from thaw.train import train

Config = Callable[..., DictConfig]


@pytest.fixture
def filled(config: Config, cache_folder: Path, tmp_path: Path) -> Path:
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    for name in ("frozen-0.partial", "frozen-1.arrays"):  # left by a process that was killed; damaged
        (cache_folder / name).mkdir()
        (cache_folder / name / "output.npy").write_bytes(b"not what it was")
    return cache_folder


def test_lists_what_is_kept(filled: Path, tmp_path: Path) -> None:
    table = cache(None)
    assert str(filled) in table
    assert table.count("output of layer2") == 3
    for said in ("200 train", "270 val", "270 test", "unfinished", "damaged", "5 entries"):
        assert said in table
    last_column = "".join(line.split("│")[-2].strip() for line in table.splitlines() if "│" in line)
    assert f"{tmp_path}/run" in last_column, "whole, on several lines where it is long"
    assert len(entries(filled)) == 5


def test_makes_room(filled: Path) -> None:
    sizes = [entry.num_bytes for entry in entries(filled)]
    assert "deleted 1 entries" in cache((sum(sizes[1:]) + 1) / 1e9)
    assert [entry.num_bytes for entry in entries(filled)] == sizes[1:]
    assert "deleted 4 entries" in cache(0)
    assert entries(filled) == []


def test_nothing_is_kept_yet() -> None:
    assert "0 entries" in cache(None)
