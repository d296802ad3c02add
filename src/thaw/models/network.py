"""Every network, whatever library it came from, as ordered named stages."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from thaw.errors import UserError


class Network(nn.Module):
    """A backbone's stages and a new head, run from input to output.

    Raises UserError where a parameter belongs to two stages: it could not be frozen in one and trained in the other.
    """

    def __init__(self, stages: dict[str, nn.Module], head: nn.Module):
        super().__init__()
        _require_own_parameters({**stages, "head": head})
        self.stages = nn.ModuleDict({**stages, "head": head})

    @property
    def stage_names(self) -> list[str]:
        """Input to output; the last is `head`."""
        return list(self.stages)

    @property
    def idle_stages(self) -> list[str]:
        """Those that have no parameters."""
        return [name for name, stage in self.stages.items() if next(stage.parameters(), None) is None]

    def forward(self, x: Any, start: int = 0) -> Tensor:
        """Logits (B, C). `x` enters stage `start`: 0 takes raw inputs, k the output of stage k - 1."""
        for stage in list(self.stages.values())[start:]:
            x = stage(x)
        return x


def new_head(num_features: int, num_outputs: int, dropout: float) -> nn.Module:
    """The last stage: features (B, D) to logits (B, C)."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_outputs))


def _require_own_parameters(stages: dict[str, nn.Module]) -> None:
    owner: dict[int, str] = {}
    for stage, name, identity in _parameters(stages):
        if (other := owner.setdefault(identity, stage)) != stage:
            raise UserError(
                f"the parameter '{name}' belongs to the stages '{other}' and '{stage}': tied weights cannot be frozen "
                f"in one stage and trained in another. Put both into one stage, or untie them."
            )


def _parameters(stages: dict[str, nn.Module]) -> Iterator[tuple[str, str, int]]:
    for stage, module in stages.items():
        for name, parameter in module.named_parameters():
            yield stage, f"{stage}.{name}", id(parameter)
