"""The progress bar."""

from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console


class ProgressBar(RichProgressBar):
    """Lightning's progress bar with epochs counted from 1, on terminals and in notebooks only."""

    @property
    def is_enabled(self) -> bool:
        """Whether there is somebody to see it."""
        console = get_console()
        return super().is_enabled and (console.is_terminal or console.is_jupyter)

    @property
    def predict_description(self) -> str:
        """What thaw predicts in training: outputs of the validation samples by the best weights."""
        return "outputs of val"

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"
