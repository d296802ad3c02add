import pytest
import torch
from torch.nn.functional import cross_entropy

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
    assert SingleLabel(2, label_smoothing=0.1).loss(logits, target).item() == pytest.approx(expected.item())


def test_mixed_targets_have_a_loss_and_a_class() -> None:
    logits, mixed = torch.randn(2, 3), torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]])
    task = SingleLabel(3)
    assert task.loss(logits, mixed).item() == pytest.approx(-(mixed * logits.log_softmax(1)).sum(1).mean().item())
    assert task.classes(mixed).tolist() == [0, 2]
    assert task.classes(torch.tensor([2, 1])).tolist() == [2, 1]


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], "balanced"])
def test_weights_that_do_not_fit_the_classes_are_refused(weights: object) -> None:
    with pytest.raises(ValueError, match=r"a list of 2 numbers, one for each class, but is .*data.balance=loss"):
        SingleLabel(2, class_weights=weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="label_smoothing"):
        SingleLabel(2, label_smoothing=1.0)


def test_metrics_agree_with_a_count_by_hand() -> None:
    metrics = SingleLabel(3).metrics()
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
