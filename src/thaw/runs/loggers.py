"""Where a run's values go. Each function takes the run's facts (folder, id, first step) and what `conf/logger/` says.

`first_step` is where a resumed run goes on. CSV and TensorBoard take back what was logged from there on, as it is
written anew; W&B cannot, and is not given again what it has; MLflow keeps both.
"""

import csv
import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from thaw.runs.wandb import ResumableWandbLogger
from thaw.errors import UserError


class MetricsCSV(CSVLogger):
    """`metrics.csv` in the run folder: always written, one row each time something is logged."""

    def __init__(self, folder: Path, first_step: int = 0):
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        _keep_rows_before(folder / ExperimentWriter.NAME_METRICS_FILE, first_step)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
        return self._experiment

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has its config.yaml."""


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning deletes the metrics it finds here; a resumed run goes on with them."""
        if Path(self.metrics_file_path).exists():
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Whole or not at all: Lightning writes over what there is."""
        _write_rows(Path(self.metrics_file_path), fieldnames, read_rows(Path(self.metrics_file_path)))


def read_rows(file: Path) -> list[dict[str, str]]:
    """Without the last one where it was cut off; none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        lines = opened.read().split("\n")[:-1]
    return list(csv.DictReader(lines))


def _write_rows(file: Path, names: list[str], rows: Iterable[dict[str, str]]) -> None:
    temporary = file.with_suffix(".partial")
    with temporary.open("w", newline="") as new:
        writer = csv.DictWriter(new, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, file)


def _keep_rows_before(file: Path, first_step: int) -> None:
    if not file.exists():
        return
    rows = read_rows(file)
    kept = [row for row in rows if int(row["step"]) < first_step]
    _write_rows(file, list(rows[0]) if rows else ["step"], kept)


def tensorboard(folder: Path, run_id: str, first_step: int) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=first_step)


def wandb(folder: Path, run_id: str, first_step: int, project: str, offline: bool | None) -> Logger:
    """Weights & Biases. `offline` None: online where a key is set up, else offline (`wandb sync` sends it later)."""
    if offline is None:
        offline = not _has_wandb_key()
    if offline:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves the machine unasked
    rows = read_rows(folder / ExperimentWriter.NAME_METRICS_FILE)  # the run's, as far as it goes on with them
    return ResumableWandbLogger(rows, name=folder.name, id=run_id, project=project, save_dir=folder, offline=offline)


def mlflow(folder: Path, run_id: str, first_step: int, experiment: str, tracking_uri: str) -> Logger:
    """MLflow (`pip install mlflow`). A resumed run is found again by its tag `thaw.run_id`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unasked
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError("logger=mlflow needs MLflow: type pip install mlflow") from error

    client = MlflowClient(tracking_uri)
    known = client.get_experiment_by_name(experiment)
    found = client.search_runs([known.experiment_id], f"tags.`thaw.run_id` = '{run_id}'") if known else []
    return MLFlowLogger(
        experiment_name=experiment,
        run_name=folder.name,
        tracking_uri=tracking_uri,
        tags={"thaw.run_id": run_id},
        run_id=found[0].info.run_id if found else None,
    )


def close(loggers: Iterable[Logger]) -> None:
    """Lightning leaves a W&B run open, and the next trial of a sweep would write into it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
