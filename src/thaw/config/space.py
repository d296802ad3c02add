"""Reads the space of a search from overrides in Hydra's own syntax: `choice`, `range`, `interval`, `tag(log, ...)`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from thaw.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def read_space(
    words: Sequence[str], loader: ConfigLoader | None = None
) -> tuple[dict[str, "BaseDistribution"], list[str]]:
    """Split overrides into those that are searched over and those that all trials have.

    A later override of a key replaces an earlier one.

    Args:
        words: overrides as typed, such as `optimizer.lr=tag(log, interval(1e-4, 1e-2))`.
        loader: finds the options that a pattern such as `freezing=glob(*)` matches.

    Returns:
        Distributions by key, and the other overrides.

    Raises:
        UserError: a range is empty, or a logarithm is taken of numbers that are not positive.
    """
    parsed = {word.get_key_element(): word for word in OverridesParser.create(loader).parse_overrides(list(words))}
    searched = {key: _distribution(word) for key, word in parsed.items() if word.is_sweep_override()}
    return searched, [str(word.input_line) for word in parsed.values() if not word.is_sweep_override()]


def _distribution(word: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution

    sweep = word.value()
    log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, IntervalSweep):
            return _numbers(sweep.start, sweep.end, None, log)
        if isinstance(sweep, RangeSweep):
            values = sorted(word.sweep_iterator())  # type: ignore[type-var]
            return _numbers(values[0], values[-1], sweep.step, log)
        return CategoricalDistribution(list(word.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"{word.input_line} is no space: {str(error) or 'it is empty'}") from error


def _numbers(low: Any, high: Any, step: Any, log: bool) -> "BaseDistribution":
    """All numbers from `low` to `high`, in steps of `step` if that is not None; integers if both are."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log, step=1 if log else step or 1)
    return FloatDistribution(low, high, log=log, step=None if log or low == high else step)
