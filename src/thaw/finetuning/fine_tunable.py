"""What thaw's callbacks need of a LightningModule."""

from typing import Protocol

from thaw.finetuning.phase import Plan
from thaw.models.network import Network


class FineTunable(Protocol):
    """A LightningModule that thaw's callbacks work on; `FineTuningModule` is one."""

    network: Network
    """The network that is trained."""
    plan: Plan
    """Which parameters train in which epoch."""
    class_names: list[str]
    """In the order of the network's outputs."""

    def step_seed(self, batch_idx: int) -> int:
        """Return the seed of everything random in a training step of the current epoch."""

    def require_finite_losses(self, wait: bool = True) -> None:
        """Raise NonFiniteLossError on every process if a loss was not finite on any. Collective: call on every rank."""
