from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

from thaw.replaying.kit import CrashKit, find_kit, read_kit, version_changes, write_kit
from thaw.types import Batch, TokenStates
from thaw.versions import current_versions

KIT = CrashKit(
    error="ValueError: no",
    non_finite=False,
    split="train",
    epoch=1,
    batch_idx=2,
    rank=0,
    seed=4,
    loss=None,
    request=([5], None),
    class_names=["a", "b"],
    num_threads=1,
    precision={},
    versions=current_versions(torch.device("cpu"), "32-true"),
    batch=None,
    tensors={},
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    return tmp_path


@pytest.mark.parametrize(
    "inputs",
    [
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.rand(1000, 5)[10:12],
        {"input_ids": torch.ones(2, 6, dtype=torch.long), "attention_mask": torch.ones(2, 6, dtype=torch.long)},
        TokenStates(torch.rand(2, 6, 4), torch.ones(2, 6)),
    ],
)
def test_a_kit_is_read_as_it_was_written(run: Path, inputs: Any) -> None:
    batch = Batch(inputs, torch.tensor([0, 1]), torch.tensor([5, 7]), start=2, view=1)
    weight = torch.nn.Parameter(torch.ones(3))
    folder = write_kit(run, replace(KIT, batch=batch, tensors={"weight": weight}), "what happened")
    kit = read_kit(find_kit(run, None))
    assert replace(kit, batch=None, tensors={}) == KIT
    assert kit.batch is not None
    torch.testing.assert_close(kit.batch, batch, rtol=0, atol=0)
    assert type(kit.batch.inputs) is type(inputs)
    if isinstance(inputs, torch.Tensor):
        assert kit.batch.inputs.stride() == inputs.stride()  # type: ignore[union-attr]
    assert torch.equal(kit.tensors["weight"], torch.ones(3))
    assert (folder / "crash.pt").stat().st_size < 10_000, "not the storage that the batch is a slice of"
    assert (folder / "crash.txt").read_text() == "what happened"
    assert (folder / "config.yaml").read_text() == "seed: 0\n"
    with (folder / "crash.pt").open("r+b") as file:
        file.write(b"?")
    with pytest.raises(ValueError, match=f"{folder}/crash.pt is damaged"):
        read_kit(folder)


def test_a_later_kit_replaces_an_earlier_one_of_the_same_rank(run: Path) -> None:
    for rank, error in ((1, "first"), (0, "second"), (0, "third")):
        (run / "crash").mkdir(exist_ok=True)
        (run / "crash/of_the_earlier").touch()
        write_kit(run, replace(KIT, rank=rank, error=error), "")
    assert {path.name for path in run.iterdir()} == {"config.yaml", "crash", "crash_rank1"}
    assert not (run / "crash/of_the_earlier").exists()
    (run / "crash_rank1.partial").mkdir()
    assert read_kit(find_kit(run, None)).error == "third"
    assert read_kit(find_kit(run, 1)).error == "first"
    with pytest.raises(ValueError, match=r"no crash kit of rank 2: .* Kits in this folder: crash(_rank1)?, crash"):
        find_kit(run, 2)


def test_a_kit_that_cannot_be_written_leaves_the_earlier_one(run: Path) -> None:
    write_kit(run, KIT, "")
    with pytest.raises(TypeError):
        write_kit(run, replace(KIT, tensors={"weight": Lock()}), "")  # type: ignore[dict-item]
    assert read_kit(find_kit(run, None)) == KIT
    assert {path.name for path in run.iterdir()} == {"config.yaml", "crash"}


def test_versions_that_differ_are_named() -> None:
    assert version_changes({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b 2, now 3", "c None, now 4"]
