"""The plans of `conf/freezing/`: functions from the names of a network's stages, input to output, to phases."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
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


def gradual(stages: Sequence[str], epochs: int = 12, epochs_per_stage: int | None = None) -> list[Phase]:
    """One more stage each phase, from the head down (ULMFiT, Howard & Ruder 2018).

    Args:
        stages: names of the network's stages.
        epochs: epochs of all phases together. Where there are more stages than epochs, a phase adds several.
        epochs_per_stage: epochs of each phase, in place of `epochs`.
    """
    if epochs_per_stage is not None:
        epochs = epochs_per_stage * len(stages)
    num_phases = min(epochs, len(stages))
    ends = [(number + 1) * epochs // num_phases for number in range(num_phases)]
    lengths = [end - start for start, end in pairwise([0, *ends])]
    firsts = [(len(stages) - 1) * num_left // max(num_phases - 1, 1) for num_left in reversed(range(num_phases))]
    return [Phase(length, tuple(stages[first:])) for length, first in zip(lengths, firsts, strict=True)]


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
