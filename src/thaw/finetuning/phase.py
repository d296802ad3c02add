"""When each stage of a network trains. Pure functions of the epoch: no torch, no Lightning."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, takewhile

from thaw.errors import UserError


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs in which the same stages train."""

    epochs: int
    """Length, at least 1."""
    train: tuple[str, ...]
    """Names or patterns (`layer*`) of the stages that train; all others are frozen."""
    lr_scale: float = 1.0
    """Factor on every learning rate in this phase, above 0."""

    def trains(self, stage: str) -> bool:
        """Whether the stage of that name trains in this phase."""
        return any(fnmatchcase(stage, pattern) for pattern in self.train)


class Plan:
    """The phases of a run, bound to the stages of one network.

    All results are functions of the epoch alone, so a resumed run continues in the phase it was in. Epochs count from
    0; epochs after the end belong to the last phase.

    Args:
        phases: in order.
        stages: names of the network's stages, input to output.

    Raises:
        UserError: naming every fault of the phases at once.
    """

    def __init__(self, phases: Sequence[Phase], stages: Sequence[str]):
        self.phases, self.stages = tuple(phases), tuple(stages)
        if faults := _faults(self.phases, self.stages):
            raise UserError("\n".join([*faults, f"the stages are: {', '.join(self.stages)}"]))
        self._ends = tuple(accumulate(phase.epochs for phase in self.phases))

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases together."""
        return self._ends[-1]

    def index(self, epoch: int) -> int:
        """Number of the phase that an epoch belongs to, from 0."""
        return min(bisect_right(self._ends, epoch), len(self.phases) - 1)

    def at(self, epoch: int) -> Phase:
        """The phase that an epoch belongs to."""
        return self.phases[self.index(epoch)]

    def start(self, epoch: int) -> int:
        """First epoch of the phase that `epoch` belongs to."""
        return (0, *self._ends)[self.index(epoch)]

    def in_last_phase(self, epoch: int) -> bool:
        """Whether an epoch belongs to the last phase."""
        return self.index(epoch) == len(self.phases) - 1

    def trained(self, epoch: int) -> frozenset[str]:
        """Names of the stages that train in an epoch."""
        phase = self.at(epoch)
        return frozenset(stage for stage in self.stages if phase.trains(stage))

    def frozen_prefix(self, epoch: int) -> int:
        """Number of leading stages that are all frozen in an epoch: their outputs are constants."""
        trained = self.trained(epoch)
        return len(list(takewhile(lambda stage: stage not in trained, self.stages)))

    def never_trained(self, epoch: int | None = None) -> int:
        """Number of leading stages that were frozen in every phase up to that of `epoch`; None: in all phases."""
        last = len(self.phases) - 1 if epoch is None else self.index(epoch)
        return min(self.frozen_prefix(end - 1) for end in self._ends[: last + 1])


def _faults(phases: tuple[Phase, ...], stages: tuple[str, ...]) -> list[str]:
    faults = [] if phases else ["a plan has at least one phase: this one has none"]
    for number, phase in enumerate(phases, start=1):
        for pattern in phase.train:
            if not any(fnmatchcase(stage, pattern) for stage in stages):
                faults.append(f"phase {number}: no stage matches '{pattern}'")
        if not phase.train:
            faults.append(f"phase {number} trains nothing: name at least one stage in `train`")
        if not isinstance(phase.epochs, int) or phase.epochs < 1:
            faults.append(f"phase {number} lasts {phase.epochs} epochs: take a whole number from 1 on, or leave it out")
        if not phase.lr_scale > 0:
            faults.append(f"phase {number}: `lr_scale` is above 0, not {phase.lr_scale}: freeze stages by `train`")
    return faults
