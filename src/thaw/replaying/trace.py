"""What a step made of numbers, stage by stage: where they cease to be finite."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from thaw.console import as_text
from thaw.types import TokenStates


@dataclass(frozen=True)
class Numbers:
    """Of some tensors, all together."""

    smallest: float | None
    """Of the finite ones; None where there is none."""
    largest: float | None
    not_finite: int
    total: int

    @property
    def finite(self) -> bool:
        return not self.not_finite


class Trace:
    """Of one step through `stages`; `watching` comes around it."""

    def __init__(self, stages: nn.ModuleDict):
        self.stages = stages
        self.inputs: Numbers | None = None
        self.outputs: dict[str, Numbers] = {}
        self.entered: str | None = None
        """The last stage that ran."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = []
        for name, stage in self.stages.items():
            hooks.append(stage.register_forward_pre_hook(lambda _, inputs, name=name: self._enters(name, inputs[0])))
            hooks.append(stage.register_forward_hook(lambda _, __, output, name=name: self._leaves(name, output)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enters(self, name: str, inputs: Any) -> None:
        self.inputs = self.inputs or numbers(_tensors(inputs))
        self.entered = name

    def _leaves(self, name: str, output: Any) -> None:
        self.outputs[name] = numbers(_tensors(output))

    def table(self) -> str:
        """A row a stage, and then in words where it begins."""
        table = Table("stage", "trains", "output from", "to", "not finite", "largest weight", "largest gradient")
        if self.inputs is not None:
            table.add_row("(inputs)", "", *_shown(self.inputs), "", "")
        for name, stage in self.stages.items():
            weights = list(stage.parameters())
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            output = _shown(self.outputs[name]) if name in self.outputs else ("", "", "")
            trains = "yes" if any(weight.requires_grad for weight in weights) else ""
            table.add_row(name, trains, *output, _largest(weights), _largest(gradients))
        return as_text(table) + "\n".join(self.findings())

    def findings(self) -> list[str]:
        found = []
        if self.inputs is not None and not self.inputs.finite:
            found.append("the inputs are not finite")
        for what, tensors in (
            ("weights that are", self.stages.named_parameters()),
            ("statistics (of trained stages: with this step) that are", self.stages.named_buffers()),
        ):
            parts = [(name, numbers([tensor])) for name, tensor in tensors]
            if odd := [f"{name} ({_part(part)})" for name, part in parts if not part.finite]:
                found.append(f"{what} not finite: {', '.join(odd[:8])}" + (" ..." if len(odd) > 8 else ""))
        first = next((name for name, output in self.outputs.items() if not output.finite), None)
        if first is not None:
            found.append(f"the first stage whose output is not finite: {first}")
        if self.entered is not None and self.entered not in self.outputs:
            found.append(f"the stage that failed: {self.entered}")
        return found or ["all inputs, weights and outputs are finite"]


def numbers(tensors: Iterable[Tensor]) -> Numbers:
    """Of those that hold floats; whole numbers are finite."""
    floats = [tensor.detach().float().flatten() for tensor in tensors if tensor.is_floating_point()]
    values = torch.cat(floats) if floats else torch.empty(0)
    finite = values[values.isfinite()]
    smallest, largest = (finite.min().item(), finite.max().item()) if len(finite) else (None, None)
    return Numbers(smallest, largest, len(values) - len(finite), len(values))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, TokenStates):
        return [value.states]
    if isinstance(value, dict):
        return [one for one in value.values() if isinstance(one, Tensor)]
    return [value] if isinstance(value, Tensor) else []


def _shown(numbers: Numbers) -> tuple[str, str, str]:
    ends = ["" if end is None else f"{end:.3g}" for end in (numbers.smallest, numbers.largest)]
    return ends[0], ends[1], _part(numbers)


def _largest(tensors: Iterable[Tensor]) -> str:
    """Of absolute values."""
    found = numbers(tensor.abs() for tensor in tensors)
    return "" if not found.total else "not finite" if found.largest is None else f"{found.largest:.3g}"


def _part(numbers: Numbers) -> str:
    return f"{numbers.not_finite:,} of {numbers.total:,}" if numbers.not_finite else ""
