"""The sweeper of `sweep=search`, see `thaw.config.search`. Hydra imports what is in `hydra_plugins` at each start."""

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Search(Sweeper):
    """Chooses the values of trials by what earlier trials gave. `settings`: see conf/hydra/sweeper/search.yaml."""

    config: DictConfig
    hydra_context: HydraContext

    def __init__(self, **settings: Any):
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, which runs trials here or on a cluster."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Work on the search until no trial is left. `arguments`: overrides as typed."""
        from thaw.config.search import search

        search(self.config, self.settings, arguments, self.hydra_context.config_loader, self._launch)

    def _launch(self, overrides: Sequence[str], number: int) -> None:
        self.launcher.launch([list(overrides)], initial_job_idx=number)
