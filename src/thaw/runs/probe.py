"""Keeps the head as it is when the backbone begins to train."""

from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from thaw.distributed.sharded import is_sharded
from thaw.models.weights import write_safetensors
from thaw.runs.files import PROBE_FILE


class SaveProbe(Callback):
    """Writes the head's weights at the end of a plan's first epochs, if only the head trains in them.

    With the pretrained backbone they are a linear probe: one end of the line on which `thaw.soup` looks for better
    weights.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the file if the next epoch is the first that trains the backbone."""
        ends_here = trainer.current_epoch + 1 == pl_module.plan.probe_epochs
        if ends_here and trainer.is_global_zero and not is_sharded(trainer.strategy):
            write_safetensors(self.folder / PROBE_FILE, pl_module.network.head.state_dict())
