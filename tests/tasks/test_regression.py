"""Numbers: standardised inside, in the user's unit outside."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from thaw.config import build
from thaw.tasks.regression import Regression

MEAN, STD = [1000.0, -2.0], [250.0, 0.5]


def made_up(count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(count, 2, generator=generator)
    outputs = targets + 0.5 * torch.randn(count, 2, generator=generator)
    return outputs, targets * torch.tensor(STD) + torch.tensor(MEAN)


def test_the_loss_does_not_depend_on_the_unit() -> None:
    outputs, targets = made_up()
    loss = Regression(2, mean=MEAN, std=STD).loss(outputs, targets)
    plain = nn.functional.mse_loss(outputs, (targets - torch.tensor(MEAN)) / torch.tensor(STD))
    assert loss.item() == pytest.approx(plain.item())
    in_thousands = Regression(2, mean=[1.0, -0.002], std=[0.25, 0.0005]).loss(outputs, targets / 1000)
    assert in_thousands.item() == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("quantities", [1, 2])
def test_metrics_are_those_of_scikit_learn_in_the_user_s_unit(
    config: Callable[..., DictConfig], quantities: int
) -> None:
    outputs, targets = (values[:, :quantities] for values in made_up())
    known = {"mean": MEAN[:quantities], "std": STD[:quantities]}
    task = build.task(config("task=regression"), ["price", "size"][:quantities], known)
    metrics = task.metrics()
    for rows in (slice(64), slice(64, 100)):
        metrics.update(
            preds=task.scored(outputs[rows]),
            target=task.metric_target(targets[rows]),
            value=task.loss(outputs[rows], targets[rows]),
            weight=len(outputs[rows]),
        )
    values = {name: value.item() for name, value in metrics.compute().items()}
    predicted, true = task.predictions(outputs).numpy(), targets.numpy()
    assert values["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=1e-4)
    assert values["r2"] == pytest.approx(r2_score(true, predicted), rel=1e-4)
    assert values["rmse"] == pytest.approx(((true - predicted) ** 2).mean() ** 0.5, rel=1e-4)
    if quantities == 1:
        assert values["rmse"] == pytest.approx(root_mean_squared_error(true, predicted), rel=1e-4)
    ranks = [spearmanr(*pair).statistic for pair in zip(true.T, predicted.T, strict=True)]
    assert values["spearman"] == pytest.approx(sum(ranks) / quantities, rel=1e-4)


def test_mean_and_spread_are_part_of_checkpoints() -> None:
    trained, other = Regression(2, mean=MEAN, std=STD), Regression(2)
    other.load_state_dict(trained.state_dict())
    assert (other.mean.tolist(), other.std.tolist()) == (MEAN, STD)


def test_the_last_layer_can_give_numbers_in_the_user_s_unit() -> None:
    task, layer, features = Regression(2, mean=MEAN, std=STD), nn.Linear(4, 2), torch.randn(8, 4)
    expected = task.predictions(layer(features))
    left = task.folded_into(layer)
    assert torch.allclose(left.predictions(layer(features)), expected, rtol=1e-5)
    assert torch.allclose(layer(features), expected, rtol=1e-5)
    share, difference = left.agreement(expected + torch.tensor([2.0, 0.05]), expected)  # 0.008 and 0.1 deviations
    assert (share, difference) == (0.0, pytest.approx(0.1, rel=1e-3))
    assert left.agreement(expected + torch.tensor([2.0, 0.0]), expected)[0] == 1


def test_what_is_said_of_a_sample() -> None:
    said = Regression(2).describe([1.5, 2.0], ["price", "size"], top_k=5)
    assert (said.columns, said.record) == ({"price": 1.5, "size": 2.0}, {"values": {"price": 1.5, "size": 2.0}})
