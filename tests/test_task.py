import pytest
import torch
from torch.nn.functional import cross_entropy

from thaw.task import SingleLabel


def test_balanced_weights_make_each_class_weigh_the_same() -> None:
    task = SingleLabel([30, 10], class_weights="balanced")
    assert task.class_weights is not None
    assert (task.class_weights * torch.tensor([30.0, 10.0])).tolist() == pytest.approx([20.0, 20.0])
    logits, target = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 0])
    assert torch.equal(task.loss(logits, target), cross_entropy(logits, target, task.class_weights))
    assert "class_weights" not in task.state_dict()


def test_label_smoothing_and_given_weights_reach_the_loss() -> None:
    logits, target = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 0])
    task = SingleLabel([3, 3], label_smoothing=0.1, class_weights=[1.0, 3.0])
    expected = cross_entropy(logits, target, torch.tensor([1.0, 3.0]), label_smoothing=0.1)
    assert torch.equal(task.loss(logits, target), expected)


def test_weights_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 numbers, but there are 2 classes"):
        SingleLabel([3, 3], class_weights=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="null, balanced or a list of 2 numbers, not 'balance'"):
        SingleLabel([3, 3], class_weights="balance")
    with pytest.raises(ValueError, match="class number 1 has no training sample"):
        SingleLabel([3, 0], class_weights="balanced")
    with pytest.raises(ValueError, match="label_smoothing"):
        SingleLabel([3, 3], label_smoothing=1.0)


def test_metrics_agree_with_a_count_by_hand() -> None:
    metrics = SingleLabel([1, 1, 1]).metrics()
    target = torch.tensor([0, 0, 0, 1, 1, 2])
    guess = torch.tensor([0, 0, 1, 1, 1, 0])
    metrics.update(torch.eye(3)[guess], target)
    values = {name: value.item() for name, value in metrics.compute().items()}
    precision, recall = [2 / 3, 2 / 3, 0], [2 / 3, 1, 0]
    f1 = [2 / 3, 4 / 5, 0]
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["macro_precision"] == pytest.approx(sum(precision) / 3)
    assert values["macro_recall"] == pytest.approx(sum(recall) / 3)
    assert values["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert values["calibration_error"] == pytest.approx(2 / 6)  # sure every time, wrong in two of six
