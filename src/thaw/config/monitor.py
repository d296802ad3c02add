"""What "best" means: the metric that a run monitors, and whether higher or lower values of it are better."""

import difflib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from thaw.config.instantiation import target_of
from thaw.errors import UserError

OURS = ("thaw.", "lightning.", "pytorch_lightning.")
"""Packages whose modules and callbacks log nothing that could be monitored beside the task's metrics."""
OF_THE_PLAN = ("plan/phase", "plan/trainable_parameters")


def require_measured(cfg: DictConfig) -> None:
    """Raise UserError if the monitored metric is not logged, as far as names tell; imports nothing.

    The user's own module, task or callbacks may log more metrics.
    """
    nodes = (cfg.module, cfg.task, *cfg.callbacks.values())
    if not all(str(node.get("_target_")).startswith(OURS) for node in nodes if node is not None):
        return
    names = [name for name, node in cfg.task.get("metrics", {}).items() if node is not None]
    known = [f"{category}/{split}" for split in ("val", "train") for category in ("loss", *names)]
    watching = {
        f"callbacks.{name}.monitor": node.monitor for name, node in cfg.callbacks.items() if "monitor" in (node or ())
    }
    for key, metric in {"monitor.metric": cfg.monitor.metric, **watching}.items():
        if metric not in (*known, *OF_THE_PLAN, None):
            close = difflib.get_close_matches(str(metric), known, n=1, cutoff=0.3)
            raise UserError(
                f"{key}={metric} is not measured in training, but {', '.join(sorted(known))} are: "
                f"type {key}={(close or known)[0]}"
            )


def settle_mode(cfg: DictConfig) -> None:
    """Set `monitor.mode` to what follows from the metric. Raises UserError, see `mode_of`."""
    classes = {str(name): target_of(node) for name, node in cfg.task.get("metrics", {}).items() if node is not None}
    cfg.monitor.mode = mode_of(cfg.monitor.metric, cfg.monitor.mode, modes_of(classes).get(cfg.monitor.metric))


def modes_of(metrics: Mapping[str, Any]) -> dict[str, str | None]:
    """Max or min of the loss and of metrics in training, by name; None where it is unknown.

    Args:
        metrics: classes of torchmetrics by name; their `higher_is_better` decides.
    """
    modes = {True: "max", False: "min", None: None}
    categories = {"loss": "min"} | {
        name: modes[getattr(kind, "higher_is_better", None)] for name, kind in metrics.items()
    }
    return {f"{category}/{split}": mode for split in ("val", "train") for category, mode in categories.items()}


def mode_of(metric: str, mode: str | None, own: str | None) -> str:
    """Return max or min for a metric.

    Args:
        metric: its name.
        mode: what the user says, max or min; None: it follows from the metric.
        own: what the metric says; None if it does not.

    Raises:
        UserError: the mode cannot be known, or `mode` contradicts the metric.
    """
    if own is None and mode is None:
        raise UserError(f"whether a higher {metric} is better is not known: type monitor.mode=max or monitor.mode=min")
    if mode is not None and own is not None and mode != own:
        better = "higher" if own == "max" else "lower"
        raise UserError(f"monitor.mode={mode} would keep the worst epoch: {better} {metric} is better, so leave it out")
    return str(mode or own)
