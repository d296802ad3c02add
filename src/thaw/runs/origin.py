"""What a run started from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def origin(config: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the backbone, and the weights that training started from as a phrase; without the folders they lie in.

    Args:
        config: the resolved configuration of the run.
    """
    backbone = config["backbone"]
    name = Path(str(backbone.get("name") or "")).name or backbone["_target_"].rpartition(".")[2]
    weights = Path(str(config.get("init_from") or backbone.get("weights"))).name
    if not config.get("pretrained", True):  # folders of earlier versions have no such key
        weights = "none"
    phrases = {"None": "random weights", "none": "random weights", "default": "its default weights"}
    return name, phrases.get(weights, f"weights {weights}")
