"""Spaces of searches, as they are typed."""

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from thaw.config.space import read_space
from thaw.errors import UserError


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tag(log, interval(1e-4, 1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("interval(0, 0.5)", FloatDistribution(0.0, 0.5)),
        ("int(interval(2, 9))", IntDistribution(2, 9)),
        ("range(1, 6)", IntDistribution(1, 5)),
        ("range(1, 10, step=4)", IntDistribution(1, 9, step=4)),
        ("tag(log, range(8, 257))", IntDistribution(8, 256, log=True)),
        ("range(0.1, 0.4, step=0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("choice(full, gradual)", CategoricalDistribution(["full", "gradual"])),
        ("0.1,null,[head]", CategoricalDistribution(["0.1", "null", "[head]"])),
    ],
)
def test_hydra_s_syntax_says_the_space(typed: str, expected: BaseDistribution) -> None:
    space, fixed = read_space(["seed=1", f"key={typed}"])
    assert space == {"key": expected}
    assert fixed == ["seed=1"]


def test_a_key_that_is_typed_replaces_that_of_the_file() -> None:
    assert read_space(["lr=interval(0,1)", "freezing=choice(a,b)", "lr=0.1", "freezing=b,c"]) == (
        {"freezing": CategoricalDistribution(["b", "c"])},
        ["lr=0.1"],
    )


@pytest.mark.parametrize("typed", ["interval(2, 1)", "tag(log, interval(0, 1))", "range(5, 1)"])
def test_a_space_without_values_is_refused(typed: str) -> None:
    with pytest.raises(UserError, match=r"key=\w+\(.* is no space: "):
        read_space([f"key={typed}"])
