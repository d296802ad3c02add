"""Puts the configurations of the project that a command is typed in first on Hydra's search path.

Hydra imports what is in `hydra_plugins` at each start, so this is thin.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from thaw.config.conf_folder import project_conf


class ProjectSearchPath(SearchPathPlugin):
    """A file of the project replaces thaw's of the same name. It names a folder, and runs nothing."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the project's folder, if there is one."""
        if (folder := project_conf()) is not None:
            search_path.prepend("project", f"file://{folder}")
