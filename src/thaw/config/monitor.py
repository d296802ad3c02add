"""What "best" means: the metric that a run monitors, and whether higher or lower values of it are better."""

import difflib
from collections.abc import Mapping

from omegaconf import DictConfig

from thaw.config.instantiation import target_of
from thaw.errors import UserError
from thaw.tasks.single_label import SingleLabel
from thaw.training.module import FineTuningModule

OURS = ("thaw.", "lightning.", "pytorch_lightning.")
"""Packages whose modules and callbacks log nothing that could be monitored beside the task's metrics."""
OF_THE_PLAN = ("plan/phase", "plan/trainable_parameters")


def settle_mode(cfg: DictConfig, module: FineTuningModule) -> None:
    """Set `monitor.mode` to what follows from the metric. Raises UserError, see `mode_of`."""
    parts = (type(module), *(target_of(node) for node in cfg.callbacks.values() if node is not None))
    is_closed = all(part.__module__.startswith(OURS) for part in parts)
    modes: dict[str, str | None] = {**modes_of(module.task), **dict.fromkeys(OF_THE_PLAN)}
    cfg.monitor.mode = mode_of(cfg.monitor.metric, cfg.monitor.mode, modes, is_closed)


def modes_of(task: SingleLabel) -> dict[str, str | None]:
    """Max or min of each metric of a task by name, by torchmetrics' `higher_is_better`; None where that is unset."""
    modes = {True: "max", False: "min", None: None}
    categories = {name: modes[metric.higher_is_better] for name, metric in task.metrics().items()} | {"loss": "min"}
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
        raise UserError(f"monitor.mode={mode} would keep the worst epoch, {better} {metric} is better: leave it out")
    return str(mode or own)
