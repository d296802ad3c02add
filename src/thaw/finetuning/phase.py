"""When each parameter of a network trains. Pure functions of the epoch: no torch, no Lightning.

Parameters are known by their addresses, `stage.path.of.parameter`: see `Network.addresses`.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, takewhile

from thaw.errors import UserError
from thaw.patterns import chosen, matches


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs in which the same parameters train."""

    epochs: int
    """Length, at least 1."""
    train: tuple[str, ...]
    """Patterns of the stages (`layer*`) and parameters (`*.bias`) that train; all others are frozen.

    `!pattern` excludes: `(head, "!*.bias")`. With exclusions only, all others train: `("!stem",)`."""
    lr_scale: float = 1.0
    """Factor on every learning rate in this phase, above 0."""

    def __post_init__(self) -> None:
        if isinstance(self.train, str):
            raise UserError(f"`train` of a phase is a tuple of patterns, not '{self.train}': write ({self.train!r},)")

    def trained(self, stages: Mapping[str, Sequence[str]]) -> frozenset[str]:
        """Addresses of the parameters that train in this phase; `stages`: addresses of all by stage."""
        return chosen(stages, self.train)


class Plan:
    """The phases of a run, bound to the parameters of one network.

    All results are functions of the epoch alone, so a resumed run continues in the phase it was in. Epochs count from
    0; epochs after the end belong to the last phase.

    Args:
        phases: in order.
        stages: addresses of the network's parameters that may train, by stage, input to output.

    Raises:
        UserError: naming every fault of the phases at once.
    """

    trained_in: tuple[frozenset[str], ...]
    """Addresses of the parameters that train, by phase."""

    def __init__(self, phases: Sequence[Phase], stages: Mapping[str, Sequence[str]]):
        self.phases, self.stages = tuple(phases), stages
        self.trained_in = tuple(phase.trained(stages) for phase in self.phases)
        if faults := [*self._faults()]:
            names = [stage for stage, addresses in stages.items() if addresses]
            empty = [stage for stage, addresses in stages.items() if not addresses]
            never = f" ({', '.join(empty)}: nothing in it may train)" if empty else ""
            listed = f"the stages are: {', '.join(names)}{never}; {explain_addresses(stages)}"
            raise UserError("\n".join([*faults, listed]))
        self.ends = tuple(accumulate(phase.epochs for phase in self.phases))
        """The epoch after the last one of each phase."""

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases together."""
        return self.ends[-1]

    @property
    def probe_epochs(self) -> int:
        """Leading epochs in which only the last stage trains; 0 if no other stage trains in the whole plan."""
        *backbone, _ = self.stages.values()
        head_only = takewhile(lambda trained: all(map(trained.isdisjoint, backbone)), self.trained_in)
        num_phases = len(list(head_only))
        return (0, *self.ends)[num_phases] if num_phases < len(self.phases) else 0

    def index(self, epoch: int) -> int:
        """Number of the phase that an epoch belongs to, from 0."""
        return min(bisect_right(self.ends, epoch), len(self.phases) - 1)

    def at(self, epoch: int) -> Phase:
        """The phase that an epoch belongs to."""
        return self.phases[self.index(epoch)]

    def start(self, epoch: int) -> int:
        """First epoch of the phase that `epoch` belongs to."""
        return (0, *self.ends)[self.index(epoch)]

    def epochs_like(self, epoch: int) -> range:
        """The epochs of the phase that `epoch` belongs to."""
        start = self.start(epoch)
        return range(start, start + self.at(epoch).epochs)

    def in_last_phase(self, epoch: int) -> bool:
        """Whether an epoch belongs to the last phase."""
        return self.index(epoch) == len(self.phases) - 1

    def trained(self, epoch: int) -> frozenset[str]:
        """Addresses of the parameters that train in an epoch."""
        return self.trained_in[self.index(epoch)]

    def frozen_prefix(self, epoch: int) -> int:
        """Number of leading stages that are all frozen in an epoch: their outputs are constants."""
        trained = self.trained(epoch)
        return len(list(takewhile(trained.isdisjoint, self.stages.values())))

    def never_trained(self, epoch: int | None = None) -> int:
        """Number of leading stages that were frozen in every phase up to that of `epoch`; None: in all phases."""
        last = len(self.phases) - 1 if epoch is None else self.index(epoch)
        return min(self.frozen_prefix(end - 1) for end in self.ends[: last + 1])

    def _faults(self) -> Iterator[str]:
        if not self.phases:
            yield "a plan has at least one phase: this one has none"
        for number, (phase, trained) in enumerate(zip(self.phases, self.trained_in, strict=True), start=1):
            stray = [pattern for pattern in phase.train if not matches(self.stages, [pattern.removeprefix("!")])]
            yield from (f"phase {number}: nothing matches '{pattern}'" for pattern in stray)
            yield from (
                f"phase {number}: nothing matches '{pattern}' but parameters of the head, which trains anyway"
                for pattern in self._only_in_head(phase)
            )
            if not phase.train:
                yield f"phase {number} trains nothing: name at least one stage in `train`"
            elif not trained and not stray:
                yield f"phase {number} trains nothing: its ! patterns exclude all that the others match"
            if not isinstance(phase.epochs, int) or phase.epochs < 1:
                yield f"phase {number} lasts {phase.epochs} epochs: take a whole number from 1 on, or leave it out"
            if not phase.lr_scale > 0:
                yield f"phase {number}: `lr_scale` is above 0, not {phase.lr_scale}: freeze stages by `train`"

    def _only_in_head(self, phase: Phase) -> list[str]:
        """Patterns that match parameters of the head only, where all of it trains anyway.

        In a network without biases, `[head, "*.bias"]` would be a linear probe.
        """
        head, addresses = list(self.stages.items())[-1]
        included = [pattern for pattern in phase.train if not pattern.startswith("!")]
        found = {pattern: matches(self.stages, [pattern]) for pattern in included if not fnmatchcase(head, pattern)}
        all_of_head = any(fnmatchcase(head, pattern) for pattern in included)
        return [pattern for pattern, own in found.items() if all_of_head and own and own.issubset(addresses)]


def explain_addresses(stages: Mapping[str, Sequence[str]]) -> str:
    """How plans name a parameter, with one of these as an example."""
    example = next(addresses[-1] for addresses in stages.values() if addresses)
    return f"a parameter is named by its stage and its path: {example}"


def as_typed(patterns: Iterable[str]) -> str:
    """A list of patterns as YAML and Hydra's command line read it: `[head, "*.bias"]`."""
    typed = (pattern if re.fullmatch(r"[A-Za-z_][\w.]*", pattern) else json.dumps(pattern) for pattern in patterns)
    return f"[{', '.join(typed)}]"
