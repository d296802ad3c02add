"""What a network says of samples, one after the other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from thaw.data.loader import BatchLoader, workers_with_room
from thaw.errors import UserError
from thaw.predicting.dataset import PredictionDataset
from thaw.tasks.task import Task


class Prediction(NamedTuple):
    """Result for one sample.

    Attributes:
        sample: Index of the sample in its dataset.
        values: Probability of each class, or number of each quantity; None if the sample cannot be used.
        fault: Why it cannot be used; None if it can.
    """

    sample: int
    values: list[float] | None
    fault: str | None


def predictions(
    dataset: PredictionDataset,
    models: Sequence[tuple[nn.Module, Task]],
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str = "auto",
) -> Iterator[Prediction]:
    """Predict all samples, and yield one prediction for each, in the order of the dataset.

    Args:
        dataset: The samples.
        models: Networks, which return outputs (B, C) for a result of `dataset.to_network`, each with the task that
            turns these into predictions. Those of several are averaged.
        batch_size: Samples that are classified at once.
        num_workers: Loader processes; None takes the dataset's default.
        device: A device of torch; "auto" takes the accelerator if there is one.

    Raises:
        UserError: if there is no such device.
    """
    torch_device = _device(device)
    workers = dataset.default_workers if num_workers is None else num_workers
    batches = [dataset.order[start : start + batch_size] for start in range(0, len(dataset), batch_size)]
    workers = min(workers, len(batches)) if len(batches) > 1 else 0  # starting a process does not pay for one batch
    if workers:
        longest, _ = dataset[dataset.order[-1:]]  # of texts, which are in the order of their lengths
        tensors = [] if longest is None else longest.values() if isinstance(longest, dict) else [longest]
        workers = workers_with_room(workers, batch_size * sum(tensor.nbytes for tensor in tensors))
    loader = BatchLoader(dataset, batches, workers)
    models = [(network.to(torch_device).eval(), task) for network, task in models]
    ready: dict[int, Prediction] = {}  # predictions whose predecessors are in a later batch
    next_sample = 0
    for indices, (inputs, faults) in zip(batches, loader, strict=True):
        rows = iter(())
        if inputs is not None:
            with torch.inference_mode():
                moved = dataset.to_network(inputs, torch_device)
                found = torch.stack([task.predictions(network(moved)) for network, task in models])
                rows = iter(found.mean(dim=0).tolist())
        for index, fault in zip(indices, faults, strict=True):
            ready[index] = Prediction(index, next(rows) if fault is None else None, fault)
        while next_sample in ready:
            yield ready.pop(next_sample)
            next_sample += 1


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"device={name} cannot be used here ({reason}): device=auto") from error
