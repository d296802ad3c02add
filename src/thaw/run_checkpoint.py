"""Checkpoints that may be moved together with their run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but its state names files and not absolute paths.

    Lightning forgets the best score when a run resumes in another place, and goes on with a path that is not there.
    """

    def state_dict(self) -> dict[str, Any]:
        return {**self._with_paths(super().state_dict(), lambda path: Path(path).name), "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath))
        super().load_state_dict(
            self._with_paths({**state_dict, "dirpath": self.dirpath}, lambda path: str(here / Path(path).name))
        )

    @staticmethod
    def _with_paths(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
        """`state` with every path of a file changed; an empty one says that there is no such file yet."""
        changed = {name: change(state[name]) if state[name] else "" for name in PATHS}
        best = {change(path): score for path, score in state["best_k_models"].items()}
        return {**state, **changed, "best_k_models": best}
