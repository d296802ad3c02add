"""Ranges of the values in a step, stage by stage, which show where they stop being finite."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thaw.console import as_text
from thaw.models.network import Network


@dataclass(frozen=True)
class ValueRange:
    """Range of the floating-point values in some tensors.

    Attributes:
        smallest: Smallest finite value; NaN if there is none.
        largest: Largest finite value; NaN if there is none.
        non_finite: How many values are NaN or infinite.
        total: How many values there are.
    """

    smallest: float
    largest: float
    non_finite: int
    total: int


def value_range(values: Any) -> ValueRange:
    """Range of all floating-point tensors in a tensor, or in a nest of tuples, lists and dicts."""
    floats = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    flat = torch.cat([tensor.detach().float().flatten() for tensor in floats]) if floats else torch.empty(0)
    finite = flat[flat.isfinite()]
    smallest, largest = finite.aminmax() if len(finite) else (torch.nan, torch.nan)
    return ValueRange(float(smallest), float(largest), len(flat) - len(finite), len(flat))


class StageTrace:
    """Records the range of each stage's output while `network` runs. The hooks stay in the network.

    Attributes:
        ranges: Range of the inputs, then of the last output of each stage that succeeded, by stage.
        running: Stages that have started and not finished: empty unless a stage failed.
    """

    def __init__(self, network: Network, inputs: Any):
        self.network, self.running = network, list[str]()
        self.ranges = {"(inputs)": value_range(inputs)}
        for name, (modules, _) in _stages(network).items():
            for module in modules:
                module.register_forward_pre_hook(lambda *_, name=name: self.running.append(name))
                module.register_forward_hook(lambda _, __, output, name=name: self._leave(name, output))

    def _leave(self, stage: str, output: Any) -> None:
        self.running.pop()
        self.ranges[stage] = value_range(output)

    def report(self) -> str:
        """A table with one row a stage, then the first stage with non-finite values and the stage that failed."""
        table = Table("stage", "trains", "output from", "to", "non-finite", "largest weight", "largest gradient")
        for name, (_, weights) in {"(inputs)": ([], []), **_stages(self.network)}.items():
            trains = "yes" if any(weight.requires_grad for weight in weights) else ""
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            table.add_row(name, trains, *_cells(self.ranges.get(name)), _largest(weights), _largest(gradients))
        non_finite = [name for name, values in self.ranges.items() if values.non_finite]
        first = f"the first stage with non-finite values: {non_finite[0]}" if non_finite else "all outputs are finite"
        return as_text(table) + first + (f"\nthe stage that failed: {self.running[-1]}" if self.running else "")


def _stages(network: Network) -> dict[str, tuple[list[nn.Module], list[nn.Parameter]]]:
    """The outermost modules and the parameters of each stage, input to output."""
    return {
        name: (
            [network.get_submodule(path) for path in stage.modules],
            [network.get_parameter(parameter) for parameter in stage.parameters],
        )
        for name, stage in network.stages.items()
    }


def _cells(values: ValueRange | None) -> tuple[str, str, str]:
    if values is None or not values.total:
        return "", "", ""
    share = f"{values.non_finite:,} of {values.total:,}" if values.non_finite else ""
    return f"{values.smallest:.3g}", f"{values.largest:.3g}", share


def _largest(tensors: Iterable[Tensor]) -> str:
    """Largest absolute value, `nan` if one is NaN; empty without tensors."""
    sizes = [tensor.detach().abs().max().float() for tensor in tensors if tensor.numel()]
    return f"{torch.stack(sizes).max():.3g}" if sizes else ""
