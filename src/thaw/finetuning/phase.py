"""When each stage of a network trains. Pure: no torch, no Lightning, nothing stored between epochs."""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, takewhile

from thaw.errors import UserError


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs in which the same stages train."""

    epochs: int
    """How many epochs it lasts, at least 1."""
    train: tuple[str, ...]
    """Stages that train, by name or pattern (`layer*`); the others are frozen."""
    lr_scale: float = 1.0
    """Factor on every learning rate while it lasts, above 0."""

    def trains(self, stage: str) -> bool:
        return any(fnmatchcase(stage, pattern) for pattern in self.train)


class Plan:
    """The phases of a run, bound to the stages of one network (input to output).

    Everything it answers is a function of the epoch alone (counted from 0; epochs after the end belong to the last
    phase), so a resumed run stands where it stood. `idle`: stages without parameters. Raises UserError naming every
    fault at once.
    """

    def __init__(self, phases: Sequence[Phase], stages: Sequence[str], idle: Collection[str] = ()):
        self.phases, self.stages = tuple(phases), tuple(stages)
        if faults := _faults(self.phases, self.stages, idle):
            raise UserError("\n".join([*faults, f"the stages are: {', '.join(self.stages)}"]))
        self._ends = tuple(accumulate(phase.epochs for phase in self.phases))

    @property
    def total_epochs(self) -> int:
        return self._ends[-1]

    def index(self, epoch: int) -> int:
        """Which phase an epoch belongs to, from 0."""
        return min(bisect_right(self._ends, epoch), len(self.phases) - 1)

    def at(self, epoch: int) -> Phase:
        return self.phases[self.index(epoch)]

    def start(self, epoch: int) -> int:
        """First epoch of the phase that `epoch` belongs to."""
        return (0, *self._ends)[self.index(epoch)]

    def in_last_phase(self, epoch: int) -> bool:
        return self.index(epoch) == len(self.phases) - 1

    def trained(self, epoch: int) -> frozenset[str]:
        phase = self.at(epoch)
        return frozenset(stage for stage in self.stages if phase.trains(stage))

    def frozen_prefix(self, epoch: int) -> int:
        """How many leading stages are all frozen: their outputs are constants."""
        trained = self.trained(epoch)
        return len(list(takewhile(lambda stage: stage not in trained, self.stages)))

    def never_trained(self, epoch: int | None = None) -> int:
        """How many leading stages have been frozen in every phase up to that of `epoch`; None: in all phases."""
        last = len(self.phases) - 1 if epoch is None else self.index(epoch)
        return min(self.frozen_prefix(end - 1) for end in self._ends[: last + 1])


def _faults(phases: tuple[Phase, ...], stages: tuple[str, ...], idle: Collection[str]) -> list[str]:
    faults = [] if phases else ["a plan has at least one phase: this one has none"]
    for number, phase in enumerate(phases, start=1):
        for pattern in phase.train:
            if not any(fnmatchcase(stage, pattern) for stage in stages):
                faults.append(f"phase {number}: no stage matches '{pattern}'")
        if not phase.train:
            faults.append(f"phase {number} trains nothing: name at least one stage in `train`")
        elif (trained := {stage for stage in stages if phase.trains(stage)}) and trained <= set(idle):
            faults.append(f"phase {number} trains nothing: {', '.join(sorted(trained))} has no parameters")
        if not isinstance(phase.epochs, int) or phase.epochs < 1:
            faults.append(f"phase {number} lasts {phase.epochs} epochs: take a whole number from 1 on, or leave it out")
        if not phase.lr_scale > 0:
            faults.append(f"phase {number}: `lr_scale` is above 0, not {phase.lr_scale}: freeze stages by `train`")
    return faults
