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


def settle_mode(cfg: DictConfig) -> None:
    """Set `monitor.mode` to what follows from the metric. Raises UserError, see `mode_of`."""
    nodes = (cfg.module, cfg.task, *cfg.callbacks.values())
    is_closed = all(target_of(node).__module__.startswith(OURS) for node in nodes if node is not None)
    classes = {str(name): target_of(node) for name, node in cfg.task.get("metrics", {}).items() if node is not None}
    modes: dict[str, str | None] = {**modes_of(classes), **dict.fromkeys(OF_THE_PLAN)}
    cfg.monitor.mode = mode_of(cfg.monitor.metric, cfg.monitor.mode, modes, is_closed)


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


def mode_of(metric: str, mode: str | None, known: Mapping[str, str | None], is_closed: bool) -> str:
    """Return max or min for a metric.

    Args:
        metric: its name.
        mode: what the user says; None: it follows from the metric.
        known: modes by name of the metrics that are logged in training; None where a metric does not say.
        is_closed: whether no others are logged. The user's own module or callbacks may log more.

    Raises:
        UserError: the metric is not logged, its mode cannot be known, or `mode` contradicts it.
    """
    if mode not in (None, "max", "min"):
        raise UserError(f"monitor.mode is max, min or null (as the metric says), not {mode}")
    if metric not in known and is_closed:
        close = difflib.get_close_matches(metric, known, n=1, cutoff=0.3)
        raise UserError(
            f"monitor.metric={metric} is not measured in training, but {', '.join(sorted(known))} are: "
            f"type monitor.metric={(close or list(known))[0]}"
        )
    own = known.get(metric)
    if own is None and mode is None:
        raise UserError(f"whether a higher {metric} is better is not known: type monitor.mode=max or monitor.mode=min")
    if mode is not None and own is not None and mode != own:
        better = "higher" if own == "max" else "lower"
        raise UserError(f"monitor.mode={mode} would keep the worst epoch: {better} {metric} is better, so leave it out")
    return str(mode or own)
