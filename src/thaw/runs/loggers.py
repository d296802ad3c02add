"""Loggers of a run. Each function takes what it needs of the run's folder, id and first step, and its options.

`first_step` is the step from which a resumed run continues. CSV and TensorBoard drop what was logged from there on,
because it is logged again. W&B cannot drop rows, so rows that it has are not sent again. MLflow keeps both versions.
"""

import csv
import netrc
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.fabric.utilities.logger import _flatten_dict, _sanitize_params
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from torch.utils.tensorboard.summary import hparams

from thaw.errors import UserError
from thaw.faults import naming_write
from thaw.runs.files import read_rows
from thaw.runs.wandb import ResumableWandbLogger
from thaw.storage import written_whole

NOT_SHOWN = ("callbacks", "logger", "caching", "run_folder", "run_id", "report")
"""Keys of the configuration that TensorBoard's table of runs leaves out: they have many columns and seldom differ."""


class MetricsCSV(CSVLogger):
    """Logger that writes `metrics.csv` in the run folder, one row each time something is logged."""

    def __init__(self, folder: Path, first_step: int = 0):
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        _keep_rows_before(folder / ExperimentWriter.NAME_METRICS_FILE, first_step)

    @property
    def experiment(self) -> Any:
        """Lightning's writer, except that it continues an existing file."""
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder holds config.yaml."""


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Read the columns of an existing file; Lightning would delete it."""
        if Path(self.metrics_file_path).exists():
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def save(self) -> None:
        """Write the rows logged since. Raises OSError with the file's name."""
        with naming_write(Path(self.metrics_file_path)):
            super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Replace the file in one step; Lightning overwrites it, and a kill would leave half of it."""
        _write_rows(Path(self.metrics_file_path), fieldnames, read_rows(Path(self.metrics_file_path)))


def _write_rows(file: Path, names: list[str], rows: Iterable[dict[str, str]]) -> None:
    with written_whole(file) as temporary, temporary.open("w", newline="") as new:
        writer = csv.DictWriter(new, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def _keep_rows_before(file: Path, first_step: int) -> None:
    if not file.exists():
        return
    rows = read_rows(file)
    _write_rows(file, list(rows[0]) if rows else ["step"], [row for row in rows if int(row["step"]) < first_step])


def tensorboard(folder: Path, first_step: int) -> Logger:
    """Return a TensorBoard logger that writes to `tensorboard/` in the run folder."""
    return RunTensorBoard(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=first_step)


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger, except that the HPARAMS tab knows the names of the final metrics from the start.

    TensorBoard shows only the metrics that are named when the hyperparameters are written first.
    """

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Write the configuration of a run, flat, and the names `final/<metric>/<split>`.

        `NOT_SHOWN` is left out. Custom scalars get a chart for each metric, with train and val.
        """
        self.hparams.update(params)  # for hparams.yaml
        metrics = ["loss", *(params["task"].get("metrics") or ())]
        charts = {metric: ["Multiline", [f"^{metric}/train$", f"^{metric}/val$"]] for metric in metrics}
        self.experiment.add_custom_scalars({"train and val": charts})
        names = {f"final/{metric}/{split}": 0.0 for metric in metrics for split in ("train", "val", "test")}
        chosen = {name: value for name, value in params.items() if name not in NOT_SHOWN}
        for summary in hparams(_sanitize_params(_flatten_dict(chosen)), names):
            self.experiment._get_file_writer().add_summary(summary)


def wandb(folder: Path, thaw_id: str, project: str, offline: bool | None) -> Logger:
    """Return a Weights & Biases logger that writes to `wandb/` in the run folder.

    Args:
        folder: The run folder.
        thaw_id: W&B's id of the run; a resumed run keeps it.
        project: Name of the W&B project.
        offline: Whether nothing is sent until `wandb sync`; None: offline if no API key is set up.
    """
    if offline is None:
        offline = not _has_wandb_key()
    if offline:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves the machine unasked
    rows = read_rows(folder / ExperimentWriter.NAME_METRICS_FILE)
    return ResumableWandbLogger(rows, name=folder.name, id=thaw_id, project=project, save_dir=folder, offline=offline)


def mlflow(folder: Path, thaw_id: str, experiment: str, tracking_uri: str) -> Logger:
    """Return an MLflow logger (`pip install mlflow`). The tag `thaw.run_id` names the run.

    Pictures of a new experiment in a local database go beside it: MLflow would put them into the current folder.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unasked
    try:
        from mlflow.tracking import MlflowClient  # here, because it is an extra
    except ImportError as error:
        raise UserError("logger=mlflow needs MLflow: type pip install mlflow") from error

    client = MlflowClient(tracking_uri)
    existing = client.get_experiment_by_name(experiment)
    runs = client.search_runs([existing.experiment_id], f"tags.`thaw.run_id` = '{thaw_id}'") if existing else []
    database = tracking_uri.removeprefix("sqlite:///")
    beside = Path(database).resolve().with_name("mlflow_artifacts").as_uri() if database != tracking_uri else None
    return MLFlowLogger(
        experiment_name=experiment,
        artifact_location=beside,
        run_name=folder.name,
        tracking_uri=tracking_uri,
        tags={"thaw.run_id": thaw_id},
        run_id=runs[0].info.run_id if runs else None,
    )


def log_final(loggers: Iterable[Logger], metrics: Mapping[str, float], step: int) -> None:
    """Log the metrics of a finished run: TensorBoard and MLflow as `final/<name>`, W&B in the summary of the run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(dict(metrics))
        elif isinstance(logger, TensorBoardLogger | MLFlowLogger):
            logger.log_metrics({f"final/{name}": value for name, value in metrics.items()}, step)


def close(loggers: Iterable[Logger]) -> None:
    """End W&B runs. Lightning leaves them open, and the next trial of a sweep would write into them."""
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
