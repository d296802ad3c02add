"""Writes a run's log and results into its folder, while it trains and at its end."""

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer

from thaw.arguments import for_shell
from thaw.distributed.agree import from_first
from thaw.distributed.ranks import ranks
from thaw.distributed.sharded import is_sharded
from thaw.errors import NonFiniteLossError, UserError
from thaw.faults import fault
from thaw.finetuning.table import phase_rows
from thaw.manifest import list_in_manifest, replacing
from thaw.models.weights import NETWORK, read_checkpoint, write_safetensors
from thaw.runs.confusion import Confusion, confusion_csv
from thaw.runs.files import (
    ADAPTER_FOLDER,
    CALIBRATION_FILE,
    CLASS_NAMES_FILE,
    CONFUSION_FILE,
    ENVIRONMENT_FILE,
    HEAD_FILE,
    LOG_FILE,
    METRICS_CSV,
    METRICS_FILE,
    MODULE_FILE,
    OUTPUTS_FILE,
    PHASES_FILE,
)
from thaw.runs.folder import RunFolder
from thaw.runs.loggers import close, log_final
from thaw.runs.outputs import latest_outputs, write_outputs
from thaw.runs.secrets import masked
from thaw.tasks.metrics import split_table
from thaw.training.checkpoint import best_checkpoint
from thaw.training.checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO
from thaw.training.head_choice import HeadResult, describe
from thaw.training.module import FineTuningModule, logged_metrics
from thaw.training.sample_order import order_of
from thaw.types import Indices
from thaw.versions import current_versions

log = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    """A log that ends no run where its disk is full: that is printed once. Checkpoints fail there with a message."""

    is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Print the reason once."""
        if not self.is_told:
            print(f"{self.baseFilename} cannot be written to any more: {sys.exc_info()[1]}", file=sys.stderr)
        self.is_told = True

    def close(self) -> None:
        """Close the file, without what cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def _faults_of_threads_told_once() -> Iterator[None]:
    """Print no traceback of a thread whose disk is full, as of TensorBoard's: its logger raises the error again."""
    before = threading.excepthook
    threading.excepthook = lambda failed: None if failed.exc_value and fault(failed.exc_value) else before(failed)
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def recording(run: RunFolder, config: dict[str, Any], module: FineTuningModule, trainer: Trainer) -> Iterator[None]:
    """Write `train.log`, the plan and the versions, give the configuration to the loggers, and close them at the end.

    Messages for users get the command to go on, see `_explained`. After any error `train.log` ends with the whole
    traceback.
    """
    thaw_log = logging.getLogger("thaw")
    is_first = ranks().is_first
    file = _LogFile(run.path / LOG_FILE, encoding="utf-8") if is_first else logging.NullHandler()
    thaw_log.addHandler(file)
    try:
        if is_first:
            device, precision = trainer.strategy.root_device, str(trainer.precision)
            run.write(PHASES_FILE, json.dumps(phase_rows(module.network, module.plan), indent=2))
            environment = {"began": _now(), "finished": None, **current_versions(device, precision)}
            run.write(ENVIRONMENT_FILE, json.dumps(environment, indent=2))
        for logger in trainer.loggers:
            logger.log_hyperparams(masked(config))
        with _faults_of_threads_told_once():
            yield
    except Exception as error:
        explained = _explained(error, run)
        # Only into the file: the command prints the error, shortened, at its very end.
        whole_traceback = "".join(traceback.format_exception(error)).rstrip()
        file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, whole_traceback, (), None))
        if explained is error:
            raise
        raise explained from error
    finally:
        close(trainer.loggers)
        thaw_log.removeHandler(file)
        file.close()
        if is_first and (run.path / METRICS_CSV).is_file():
            with suppress(OSError):  # the disk is full, as another message says: it is not verified then
                list_in_manifest(run.path / METRICS_CSV)
        run.release()


def _explained(error: Exception, run: RunFolder) -> Exception:
    """The error with the command to go on, or the checkpoint; a fault of the machine becomes a UserError."""
    last = run.checkpoints / LAST
    if isinstance(error, NonFiniteLossError):
        hint = f"The last good checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
        error.args = (f"{error} {hint}",)
        return error
    if not run.path.is_dir():
        return UserError(f"{run.path} is gone: it was deleted or moved while the run trained. Start it again")
    if isinstance(error, OSError) and error.filename is None:  # a logger's
        error.filename = str(run.path)
    words = fault(error) or (str(error) if isinstance(error, UserError) else None)
    if words is None or not last.exists():
        return error if words is None else UserError(f"{words}. There is no checkpoint yet.")
    resume = f"python -m thaw.train {for_shell('resume', run.path)}"
    if "num_workers=0" in words:  # a resumed run cannot have other batches
        return UserError(f"{words}. To go on with batches of this size: {resume} data.num_workers=0")
    return UserError(f"{words}. To go on: {resume}")


def save(
    run: RunFolder,
    module: FineTuningModule,
    trainer: Trainer,
    monitor: str,
    mode: str,
    heads: Sequence[HeadResult] = (),
) -> dict[str, float]:
    """Print the final metrics, then write them, weights, class names and confusion matrix.

    The best checkpoint has been tested.

    Args:
        run: the run folder.
        module: the module, with the best weights.
        trainer: the trainer that has tested them.
        monitor: name of the metric by which the best checkpoint is chosen.
        mode: max or min.
        heads: the candidates for the head, if there was a choice. Then the metrics of validation are those that were
            measured with the one that was kept; also if there is no best checkpoint, and validation was measured.

    Returns:
        The metrics of the best checkpoint's epoch and of the test, by name.
    """
    best = best_checkpoint(trainer)
    checkpoint = read_checkpoint(best) if best else {}
    metrics = logged_metrics(trainer)
    if best:  # for other splits, the trainer holds the metrics of the last epoch
        metrics = {**checkpoint["metrics"], **{n: value for n, value in metrics.items() if n.endswith("/test")}}
    if heads or module.task.settles or not best:
        metrics |= module.predicted_metrics
    if not ranks().is_first:
        return metrics
    if heads:
        log.info(describe(heads))
    log.info(split_table(metrics))  # before anything is written, which may fail
    log_final(trainer.loggers, metrics, trainer.global_step)
    # A process of a sharded run holds only pieces of the weights; checkpoints have the whole ones.
    state = checkpoint["state_dict"] if is_sharded(trainer.strategy) else module.state_dict()
    network = {name.removeprefix(NETWORK): value for name, value in state.items() if name.startswith(NETWORK)}
    write_safetensors(run.weights, network, class_names=json.dumps(module.class_names))
    if own := {name: value for name, value in state.items() if not name.startswith(NETWORK)}:
        write_safetensors(run.path / MODULE_FILE, own)
    _write_adapter(run.path / ADAPTER_FOLDER, module)
    run.write(CLASS_NAMES_FILE, json.dumps(module.class_names, ensure_ascii=False, indent=2))
    if module.confusion is not None:
        run.write(CONFUSION_FILE, confusion_csv(Confusion(module.class_names, module.confusion.tolist())))
    # A sharded run measures nothing again: its outputs are of the last epoch.
    for split, outputs in () if is_sharded(trainer.strategy) else latest_outputs(trainer).items():
        with replacing(run.path / OUTPUTS_FILE.format(split=split)) as temporary:
            write_outputs(outputs, temporary)
        if calibration := module.task.calibration(outputs) if split == "val" else {}:
            run.write(CALIBRATION_FILE, json.dumps(calibration))
    results = {
        "monitor": monitor,
        "mode": mode,
        "best": metrics.get(monitor),
        "epoch": checkpoint.get("epoch"),
        "best_checkpoint": _relative(best, run.path) if best else None,
        "order": order_of(trainer),
        "seconds": round(time.monotonic() - run.started, 2),
        "metrics": metrics,
        "heads": [head._asdict() for head in heads],
    }
    run.write(METRICS_FILE, json.dumps(results, indent=2))
    environment = json.loads((run.path / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    run.write(ENVIRONMENT_FILE, json.dumps({**environment, "finished": _now()}, indent=2))
    AtomicCheckpointIO().remove_checkpoint(run.checkpoints / PREVIOUS)  # nothing overwrites the last one any more
    return metrics


def _now() -> str:
    return datetime.now().isoformat(timespec="seconds")


def _write_adapter(folder: Path, module: FineTuningModule) -> None:
    """Write what was trained apart from the pretrained weights: the adapter as its own library has it, and the head."""
    if module.network.adapter is None:
        return
    folder.mkdir(exist_ok=True)
    for name, content in module.network.adapter.files().items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    write_safetensors(folder / HEAD_FILE, module.network.head.state_dict(), class_names=json.dumps(module.class_names))


def load_best(trainer: Trainer, module: FineTuningModule) -> bool:
    """Load the best checkpoint's weights into the module, and return whether that was done.

    The module's weights stay as they are if no checkpoint was kept, or if each process holds only pieces of them.
    """
    if (best := best_checkpoint(trainer)) and not is_sharded(trainer.strategy):
        module.load_state_dict(read_checkpoint(best)["state_dict"])
        return True
    return False


def measure(
    trainer: Trainer,
    module: FineTuningModule,
    loaders: LightningDataModule,
    parts: Mapping[str, Indices],
    validate: bool,
) -> None:
    """Test the module, and compute its outputs for validation samples.

    Args:
        trainer: the trainer.
        module: the module, with the weights that the run ends with.
        loaders: the data.
        parts: indices of the samples of each split.
        validate: whether validation is measured, too. It clears what the trainer has logged of the last epoch.
    """
    if len(parts["val"]) and validate:
        trainer.limit_predict_batches = trainer.limit_val_batches
        trainer.predict(module, datamodule=loaders, return_predictions=False)
        if module.task.settles:
            outputs = latest_outputs(trainer).get("val")
            settled = from_first({} if outputs is None else module.task.settle(outputs))
            module.task.load_state_dict(settled, strict=False)
            trainer.predict(module, datamodule=loaders, return_predictions=False)  # outputs mean something else now
    if len(parts["test"]):
        trainer.test(module, datamodule=loaders, verbose=False)


def _relative(file: Path, folder: Path) -> str:
    """Path of a file as results name it: relative to the run folder, or absolute if it lies elsewhere."""
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)
