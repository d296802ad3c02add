from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAUROC

from thaw.config import build
from thaw.errors import UserError
from thaw.tasks.metrics import EpochMetrics


@pytest.mark.parametrize("most_waiting", [1, 60, 10**6])
def test_counting_late_counts_the_same(
    most_waiting: int, config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpochMetrics, "MOST_WAITING", most_waiting)
    task = build.task(config(), list("abc"))
    late, plain = EpochMetrics(task.metrics()), task.metrics()
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # epochs
        for size in (8, 8, 5):
            probabilities = torch.rand(size, 3, generator=generator).softmax(dim=1)
            target = torch.randint(3, (size,), generator=generator)
            loss = torch.rand((), generator=generator)
            late.update(probabilities, target, loss)
            plain.update(preds=probabilities, target=target, value=loss, weight=size)
        expected = plain.compute()
        plain.reset()
        assert late.compute() == {name: pytest.approx(value) for name, value in expected.items()}


def test_what_loader_processes_share_is_not_held() -> None:
    metrics, target = EpochMetrics(MetricCollection(MeanMetric())), torch.tensor([0, 1])
    metrics.update(torch.full((2, 2), 0.5), target, torch.tensor(1.0))
    assert metrics._waiting[0][1].data_ptr() != target.data_ptr()


def test_a_metric_of_many_numbers_is_refused() -> None:
    metrics = EpochMetrics(MetricCollection({"auroc": MulticlassAUROC(2, average=None)}, postfix="/val"))
    metrics.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]), torch.tensor(1.0))
    with pytest.raises(UserError, match=r"task.metrics.auroc gives 2 numbers, not one: type .*average=macro"):
        metrics.compute()
