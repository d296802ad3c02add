"""Outputs of a pass over a split."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from thaw.runs import outputs as module
from thaw.runs.outputs import CollectOutputs, latest_outputs, read_outputs, write_outputs
from thaw.tasks.outputs import ClassOutputs
from thaw.tasks.single_label import SingleLabel

BATCHES = [
    {"output": torch.tensor([[0.0, 2.0], [3.0, 1.0]]), "target": torch.tensor([1, 1]), "index": torch.tensor([7, 2])},
    {"output": torch.tensor([[5.0, 4.0]]), "target": torch.tensor([0]), "index": torch.tensor([4])},
]


MODULE = SimpleNamespace(task=SingleLabel(2))


def collected(monkeypatch: Any, shares: list[list[Any]]) -> ClassOutputs:
    """What the first process collects; `shares`: the batches of each process, the first process last."""
    arrays: list[Any] = []

    def gather(value: Any) -> list[Any]:
        arrays.append(value)
        return arrays if len(arrays) == len(shares) else []

    monkeypatch.setattr(module, "gather_on_first", gather)
    for batches in shares:
        collector = CollectOutputs()
        for batch in batches:
            collector.on_validation_batch_end(None, MODULE, batch, None, 0)  # type: ignore[arg-type]
        collector.on_validation_epoch_end(None, None)  # type: ignore[arg-type]
    latest = collector.latest["val"]
    assert isinstance(latest, ClassOutputs)
    return latest


def test_batches_of_all_processes_are_sorted_by_sample(monkeypatch: Any) -> None:
    for shares in ([BATCHES], [BATCHES[:1], BATCHES[1:]], [BATCHES[1:], BATCHES]):  # the last: one sample twice
        latest = collected(monkeypatch, shares)
        assert latest.indices.tolist() == [2, 4, 7]
        assert latest.targets.tolist() == [1, 0, 1]
        assert latest.logits.tolist() == [[3, 1], [5, 4], [0, 2]]
    assert latest.predictions.tolist() == [0, 0, 1]
    assert np.allclose(latest.calibrated(2.0).probabilities, softmax(latest.logits / 2, axis=1))
    assert np.allclose(latest.confidences, softmax(latest.logits, axis=1).max(axis=1))


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    collector = CollectOutputs()
    collector.on_test_batch_end(None, MODULE, BATCHES[0])  # type: ignore[arg-type]
    collector.on_test_epoch_end(None, None)  # type: ignore[arg-type]
    outputs = latest_outputs(SimpleNamespace(callbacks=[collector]))["test"]  # type: ignore[arg-type]
    write_outputs(outputs, tmp_path / "outputs_test.npz")
    read = read_outputs(tmp_path / "outputs_test.npz")
    assert read is not None
    assert all(np.array_equal(value, vars(outputs)[name]) for name, value in vars(read).items())
    assert read_outputs(tmp_path / "absent.npz") is None
    assert [file.name for file in tmp_path.iterdir()] == ["outputs_test.npz"]
