"""The plans of `conf/freezing/`: functions from the names of a network's stages, input to output, to phases."""

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.errors import UserError
from thaw.finetuning.phase import Phase, as_typed

ALL = ("*",)


def head_only(stages: Sequence[str], epochs: int) -> list[Phase]:
    """A linear probe: the backbone stays frozen."""
    return [Phase(epochs, (stages[-1],))]


def full(stages: Sequence[str], epochs: int) -> list[Phase]:
    """Everything trains from the first step."""
    return [Phase(epochs, ALL)]


def probe_then_full(
    stages: Sequence[str], epochs: int, probe_epochs: int | None = None, full_lr_scale: float = 0.5
) -> list[Phase]:
    """Head first, then everything at a lower rate (LP-FT, Kumar et al. 2022).

    Args:
        stages: names of the network's stages.
        epochs: epochs of both phases together.
        probe_epochs: epochs of the first phase; None: a quarter of all, at least one.
        full_lr_scale: factor on all rates in the second phase.

    Raises:
        UserError: a phase has no epoch.
    """
    probe = max(1, epochs // 4) if probe_epochs is None else probe_epochs
    if probe >= epochs:
        raise UserError(
            f"freezing.epochs={epochs} leaves no epoch to train everything after freezing.probe_epochs={probe}: type "
            f"freezing.epochs={probe + 1} or more, or freezing=head_only"
        )
    return [Phase(probe, (stages[-1],)), Phase(epochs - probe, ALL, full_lr_scale)]


def gradual(stages: Sequence[str], epochs_per_stage: int) -> list[Phase]:
    """One more stage each phase, from the head down (ULMFiT, Howard & Ruder 2018)."""
    return [Phase(epochs_per_stage, tuple(stages[first:])) for first in reversed(range(len(stages)))]


def chain_thaw(stages: Sequence[str], epochs_per_stage: int, rounds: int = 1) -> list[Phase]:
    """Head, then each stage alone from the input up, `rounds` times; then everything (DeepMoji, Felbo et al. 2017)."""
    alone = [Phase(epochs_per_stage, (stage,)) for stage in (stages[-1], *stages[:-1])]
    return [*alone * rounds, Phase(epochs_per_stage, ALL)]


def surgical(stages: Sequence[str], epochs: int, train: Sequence[str]) -> list[Phase]:
    """What you name, in all epochs (Lee et al. 2022: early stages for changed images, late ones for changed labels)."""
    return [Phase(epochs, _as_tuple(train))]


def explicit(stages: Sequence[str], phases: Sequence[Mapping[str, Any]]) -> list[Phase]:
    """Phases as YAML lists them: mappings with `epochs`, `train` and optionally `lr_scale`.

    Raises:
        UserError: a phase has other keys.
    """
    for number, phase in enumerate(phases, start=1):
        if not {"epochs", "train"} <= set(phase) <= {"epochs", "train", "lr_scale"}:
            raise UserError(
                f"phase {number} has the keys {', '.join(phase)}: it takes `epochs`, `train` and optionally `lr_scale`"
            )
    return [Phase(**{**phase, "train": _as_tuple(phase["train"])}) for phase in phases]


def _as_tuple(train: Sequence[str]) -> tuple[str, ...]:
    if isinstance(train, str):
        listed = as_typed([train])
        raise UserError(f"`train` is a list of patterns, not '{train}': type train={listed}, in YAML train: {listed}")
    return tuple(train)
