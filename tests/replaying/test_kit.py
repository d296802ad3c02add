import json
from pathlib import Path
from typing import Any

import pytest
import torch

from thaw.replaying.kit import Crash, read_kit, write_kit
from thaw.runs.folder import RunFolder
from thaw.types import Batch, TokenStates

FAILED = Crash(
    error="ValueError",
    message="no",
    split="train",
    epoch=1,
    phase=1,
    batch_idx=2,
    global_step=3,
    rank=0,
    world_size=2,
    seed=4,
    loss=None,
    samples=[5],
    view=None,
    class_names=["a", "b"],
    device="cpu",
    num_threads=1,
    precision={},
    versions={},
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    return RunFolder(tmp_path)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.rand(100, 5)[10:12],
        {"input_ids": torch.ones(2, 6, dtype=torch.long), "attention_mask": torch.ones(2, 6, dtype=torch.long)},
        TokenStates(torch.rand(2, 6, 4), torch.ones(2, 6)),
    ],
)
def test_batches_come_back_as_they_were(run: RunFolder, inputs: Any) -> None:
    batch = Batch(inputs, torch.tensor([0, 1]), torch.tensor([5, 7]), start=2, view=1)
    folder = write_kit(run.path, FAILED, batch, {"weight": torch.ones(3)}, "what happened")
    found = read_kit(run, None)
    assert found.crash == FAILED
    assert found.batch is not None
    torch.testing.assert_close(found.batch, batch, rtol=0, atol=0)
    assert type(found.batch.inputs) is type(inputs)
    if isinstance(inputs, torch.Tensor):
        assert found.batch.inputs.stride() == inputs.stride()  # type: ignore[union-attr]
    assert torch.equal(found.tensors["weight"], torch.ones(3))
    assert (folder / "tensors.pt").stat().st_size < 4000, "not what the batch is a part of"
    assert (folder / "crash.txt").read_text() == "what happened"
    assert (folder / "config.yaml").read_text() == "seed: 0\n"


def test_a_later_one_takes_the_place_and_ranks_have_their_own(run: RunFolder) -> None:
    for rank, message in ((1, "first"), (0, "second"), (0, "third")):
        (run.path / "crash").mkdir(exist_ok=True)
        (run.path / "crash/of_the_earlier").touch()
        write_kit(run.path, Crash(**{**vars(FAILED), "rank": rank, "message": message}), None, {}, "")
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "crash", "crash_rank1"}
    assert not (run.path / "crash/of_the_earlier").exists()
    assert read_kit(run, None).crash.message == "third"
    assert read_kit(run, 1).crash.message == "first"
    (run.path / "crash_rank1.partial").mkdir()
    assert json.loads((run.path / "crash/crash.json").read_text())["message"] == "third"
    with pytest.raises(ValueError, match=r"no repro kit of rank 2: .* There is one for rank=0, rank=1"):
        read_kit(run, 2)


def test_one_that_was_not_finished_leaves_the_earlier_one(run: RunFolder) -> None:
    write_kit(run.path, FAILED, None, {}, "")
    with pytest.raises(AttributeError):
        write_kit(run.path, FAILED, None, {"weight": "not a tensor"}, "")  # type: ignore[dict-item]
    assert read_kit(run, None).crash == FAILED
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "crash"}
