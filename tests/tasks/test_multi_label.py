"""Any number of labels for each sample: loss, thresholds, metrics and results."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from thaw.config import build
from thaw.errors import UserError
from thaw.tasks.multi_label import MultiLabel, best_thresholds
from thaw.tasks.outputs import MultiOutputs

NAMES = ["cat", "dog", "bird"]


def made_up(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.05])).float()
    return 2 * targets - 3 + torch.randn(count, 3, generator=generator), targets


def test_the_loss_is_the_mean_over_samples_and_labels_with_rare_ones_weighed() -> None:
    logits, targets = made_up()
    assert MultiLabel(3).loss(logits, targets).item() == pytest.approx(
        binary_cross_entropy_with_logits(logits, targets).item()
    )
    weights = torch.tensor([1.0, 4.0, 19.0])
    assert MultiLabel(3, class_weights=weights.tolist()).loss(logits, targets).item() == pytest.approx(
        binary_cross_entropy_with_logits(logits, targets, pos_weight=weights).item()
    )
    with pytest.raises(UserError, match=r"loss takes no `pos_weight`"):
        MultiLabel(3, torch.nn.functional.mse_loss, class_weights=[1.0, 1.0, 1.0])


def test_thresholds_are_those_with_the_highest_f1() -> None:
    logits, targets = made_up()
    probabilities, truth = logits.sigmoid().numpy(), targets.numpy().astype(int)
    found = best_thresholds(probabilities, truth)
    for number, threshold in enumerate(found):
        best = max(
            f1_score(truth[:, number], probabilities[:, number] >= at) for at in np.unique(probabilities[:, number])
        )
        assert f1_score(truth[:, number], probabilities[:, number] >= threshold) == pytest.approx(best)
    assert best_thresholds(probabilities, np.zeros_like(truth)) == [0.5] * 3
    assert best_thresholds(probabilities, np.ones_like(truth)) == [0.5] * 3


def test_metrics_are_those_of_scikit_learn_at_the_thresholds(config: Callable[..., DictConfig]) -> None:
    logits, targets = made_up()
    task = build.task(config("task=multi_label"), NAMES)
    outputs = MultiOutputs(np.arange(len(logits)), targets.numpy().astype(int), logits.numpy())
    task.load_state_dict(task.settle(outputs), strict=False)
    metrics, truth = task.metrics(), outputs.targets
    for rows in (slice(64), slice(64, 200)):
        metrics.update(
            preds=task.scored(logits[rows]),
            target=task.metric_target(targets[rows]),
            value=task.loss(logits[rows], targets[rows]),
            weight=len(logits[rows]),
        )
    values = {name: value.item() for name, value in metrics.compute().items()}
    chosen = outputs.probabilities >= np.array(task.decision()["thresholds"])
    assert values["macro_f1"] == pytest.approx(f1_score(truth, chosen, average="macro"))
    assert values["micro_f1"] == pytest.approx(f1_score(truth, chosen, average="micro"))
    assert values["mean_average_precision"] == pytest.approx(
        average_precision_score(truth, outputs.probabilities, average="macro"), abs=1e-6
    )
    assert values["auroc"] == pytest.approx(roc_auc_score(truth, outputs.probabilities, average="macro"), abs=1e-6)
    assert values["loss"] == pytest.approx(binary_cross_entropy_with_logits(logits, targets).item(), rel=1e-6)


def test_what_is_said_of_a_sample() -> None:
    task = MultiLabel(3)
    task.thresholds = torch.tensor([0.5, 0.25, 0.9])
    said = task.describe([0.4, 0.25, 0.95], NAMES, top_k=5)
    assert said.columns == {"labels": "dog|bird", "p(cat)": 0.4, "p(dog)": 0.25, "p(bird)": 0.95}
    assert said.record == {"labels": ["dog", "bird"], "probabilities": {"cat": 0.4, "dog": 0.25, "bird": 0.95}}
    none = task.describe([0.1, 0.1, 0.1], NAMES, top_k=5)
    assert (none.columns["labels"], none.record["labels"], none.counted) == ("", [], ["(no label)"])


def test_files_agree_if_every_sample_gets_the_same_labels() -> None:
    task = MultiLabel(2)
    expected = torch.tensor([[0.9, 0.1], [0.5, 0.4], [0.2, 0.7], [0.6, 0.6]])
    assert task.agreement(expected, expected) == (1.0, 0.0)
    rounded = expected + torch.tensor([[0.0, 0.0], [-1e-6, 0.0], [0.0, 0.0], [-0.2, 0.0]])
    share, difference = task.agreement(rounded, expected)
    assert (share, difference) == (0.75, pytest.approx(0.2))


def test_an_ensemble_decides_at_the_mean_of_its_thresholds() -> None:
    first, second = MultiLabel(3), MultiLabel(3)
    first.thresholds, second.thresholds = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.4, 0.4, 0.8])
    mean = first.averaged([first, second])
    assert isinstance(mean, MultiLabel)
    assert mean.thresholds.tolist() == pytest.approx([0.3, 0.4, 0.7])
    assert first.thresholds.tolist() == pytest.approx([0.2, 0.4, 0.6])
