"""The configuration of a training run, composed from overrides as `python -m thaw.train` composes it."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from thaw.config.conf_folder import CONF

QUIET = (
    "~callbacks.progress_bar",
    "+trainer.enable_progress_bar=false",
)
"""Overrides for a run that prints nothing while it trains."""


def configuration(*overrides: str) -> DictConfig:
    """Compose the configuration that `python -m thaw.train <overrides>` gets."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))
