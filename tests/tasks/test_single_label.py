from collections.abc import Callable
from functools import partial

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from thaw.config import build
from thaw.errors import UserError
from thaw.tasks.single_label import SingleLabel


def test_a_sample_counts_the_same_in_every_batch() -> None:
    task = SingleLabel(2, class_weights=[0.5, 3.0])
    logits, target = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 0])
    whole = task.loss(logits, target)
    halves = [task.loss(logits[part], target[part]) for part in (slice(0, 3), slice(3, 6))]
    assert torch.stack(halves).mean().item() == pytest.approx(whole.item())
    each = cross_entropy(logits, target, reduction="none") * torch.tensor([0.5, 3.0])[target]
    assert whole.item() == pytest.approx(each.mean().item())
    assert "class_weights" not in task.state_dict()


def test_without_weights_the_loss_is_torchs_own() -> None:
    logits, target = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 0])
    expected = cross_entropy(logits, target, label_smoothing=0.1)
    for loss in (partial(cross_entropy, label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.1)):
        assert SingleLabel(2, loss).loss(logits, target).item() == pytest.approx(expected.item())


def test_mixed_targets_have_a_loss_and_a_class() -> None:
    logits, mixed = torch.randn(2, 3), torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]])
    task = SingleLabel(3)
    assert task.loss(logits, mixed).item() == pytest.approx(-(mixed * logits.log_softmax(1)).sum(1).mean().item())
    assert task.metric_target(mixed).tolist() == [0, 2]
    assert task.metric_target(torch.tensor([2, 1])).tolist() == [2, 1]


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], "balanced", [1.0, "much"], [1.0, -1.0]])
def test_weights_that_do_not_fit_the_classes_are_refused(weights: object) -> None:
    with pytest.raises(ValueError, match=r"a list of 2 numbers from 0 on, .*names of classes.*, but is .*balance=loss"):
        SingleLabel(2, class_weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits: logits.sum(), r"fails on outputs \(2, 3\) and classes \(2,\): TypeError"),
        (lambda logits, target: logits, r"gives \(2, 3\) for 2 samples: return the loss of each, or their mean"),
        (partial(cross_entropy, label_smoothing=1.5), "label_smoothing must be between"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_before_training(loss: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SingleLabel(3, loss)


def test_a_loss_that_cannot_weigh_classes_or_take_mixed_targets_is_refused() -> None:
    def hinge(logits: Tensor, target: Tensor) -> Tensor:
        return nn.functional.multi_margin_loss(logits, target)

    with pytest.raises(UserError, match=r"takes no `weight`.*data.balance=sampler"):
        SingleLabel(3, hinge, class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(UserError, match=r"class probabilities \(2, 3\), as mixing gives"):
        SingleLabel(3, hinge).require_loss(torch.full((2, 3), 1 / 3), "class probabilities (2, 3), as mixing gives")


def test_metrics_agree_with_a_count_by_hand(config: Callable[..., DictConfig]) -> None:
    metrics = build.task(config(), list("abc")).metrics()
    target = torch.tensor([0, 0, 0, 1, 1, 2])
    guess = torch.tensor([0, 0, 1, 1, 1, 0])
    for few, loss in ((slice(4), 0.5), (slice(4, 6), 2.0)):  # batches of unlike size
        metrics.update(preds=torch.eye(3)[guess[few]], target=target[few], value=loss, weight=len(target[few]))
    values = {name: value.item() for name, value in metrics.compute().items()}
    precision, recall = [2 / 3, 2 / 3, 0], [2 / 3, 1, 0]
    f1 = [2 / 3, 4 / 5, 0]
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["loss"] == pytest.approx((4 * 0.5 + 2 * 2.0) / 6)
    assert values["macro_precision"] == pytest.approx(sum(precision) / 3)
    assert values["macro_recall"] == pytest.approx(sum(recall) / 3)
    assert values["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert values["calibration_error"] == pytest.approx(2 / 6)  # sure every time, wrong in two of six


def test_metrics_that_agree_at_first_are_still_two() -> None:
    thresholds = {"low": Above(0.5), "high": Above(0.9)}
    metrics = SingleLabel(2, metrics=thresholds).metrics()
    for sure in (0.95, 0.7):  # at first both count the sample, then one of them does
        metrics.update(preds=torch.tensor([[sure, 1 - sure]]), target=torch.tensor([0]), value=1.0, weight=1)
    values = metrics.compute()
    assert (values["low"], values["high"]) == (2, 1)


class Above(Metric):
    """Counts samples of which one class has more than this probability."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.count += (preds.max(dim=1).values > self.threshold).sum()

    def compute(self) -> Tensor:
        return self.count


@pytest.mark.parametrize(("loss", "message"), [(nn.CrossEntropyLoss(reduction="sum"), "loss.reduction=sum: a loss is")])
def test_a_loss_that_grows_with_the_batch_is_refused(loss: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SingleLabel(2, loss)
