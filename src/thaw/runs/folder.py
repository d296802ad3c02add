"""A run folder: everything that one run produced, and the only argument that later commands need.

config.yaml  overrides.json      the resolved configuration; what was typed for it
data.txt                         samples of each class and split, what was left out, what is odd
samples.csv                      label and split of every sample
input_spec.json  backbone.json   what the network expects of its inputs; what else rebuilds it, if anything
class_names.json                 in the order of the network's outputs
checkpoints/best-*.ckpt last.ckpt manifest.json
                                 the best ones and the last, with their checksums; while it runs also previous.ckpt
metrics.csv  metrics.json        every value logged; the final ones
confusion_test.csv               samples by true class (row) and predicted class (column), if there is a test split
weights.safetensors              weights of the best checkpoint
tensorboard/ wandb/              as conf/logger says
train.log                        what the console said, and the whole traceback of an error
crash/ crash_rank1/              a repro kit, if a step or loading a batch failed: see replaying/kit.py
"""

import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from safetensors.torch import save_file

from thaw.data.module import DataModule
from thaw.data.samples import SampleRecord, as_csv, from_csv
from thaw.distributed.ranks import ranks
from thaw.distributed.sharded import is_sharded
from thaw.errors import NonFiniteLossError, UserError
from thaw.models.weights import read_checkpoint, read_class_names
from thaw.runs.confusion import Confusion, confusion_csv
from thaw.runs.files import (
    BACKBONE_FILE,
    CHECKPOINTS,
    CLASS_NAMES_FILE,
    CONFIG_FILE,
    CONFUSION_FILE,
    DATA_FILE,
    FAILURE_FILE,
    INPUT_SPEC_FILE,
    LOCK_FILE,
    LOG_FILE,
    METRICS_FILE,
    OVERRIDES_FILE,
    SAMPLES_FILE,
    WEIGHTS_FILE,
    read_metrics,
)
from thaw.runs.loggers import close
from thaw.storage import write_atomically
from thaw.tasks.metrics import split_table
from thaw.training.checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO
from thaw.training.module import FineTuningModule, logged_metrics
from thaw.training.sample_order import order_of
from thaw.types import ImageSpec, InputSpec, TokenSpec

log = logging.getLogger(__name__)

OF_A_RUN = {"global_step", "class_names", "state_dict", "optimizer_states", "epoch_metrics", "order"}
"""Keys that every checkpoint of a run has."""


class RunFolder:
    """A folder that belongs to one run.

    Args:
        path: the folder.
        checkpoint: file that the run resumes from; None for a new run and for a finished one.
        checkpoints: folder of its checkpoints, if they lie elsewhere.
    """

    def __init__(self, path: str | Path, checkpoint: Path | None = None, checkpoints: str | Path | None = None):
        self.path, self.checkpoint = Path(path).resolve(), checkpoint
        self.checkpoints = self.path / CHECKPOINTS if checkpoints is None else Path(checkpoints).resolve()
        self.started = time.monotonic()
        self._lock = FileLock(self.path / LOCK_FILE)

    # What a run folder remembers.

    @property
    def weights(self) -> Path:
        """The file of the best checkpoint's weights; it exists if the run has finished."""
        return self.path / WEIGHTS_FILE

    @cached_property
    def resumed(self) -> dict[str, Any]:
        """Content of the checkpoint to resume from. Raises UserError if it is not one of a run."""
        assert self.checkpoint is not None
        content = read_checkpoint(self.checkpoint)
        if not content.keys() >= OF_A_RUN:
            raise UserError(f"{self.checkpoint} is no checkpoint of a run. To start from its weights: init_from=...")
        return content

    @property
    def first_step(self) -> int:
        """Optimizer steps before this start of the run."""
        return 0 if self.checkpoint is None else self.resumed["global_step"]

    def class_names(self) -> list[str]:
        """Class names, in the order of the network's outputs."""
        if self.checkpoint is not None:
            return self.resumed["class_names"]
        names = read_class_names(self.weights)
        assert names is not None, f"{self.weights} names no classes"
        return names

    def metrics(self) -> dict[str, float]:
        """Final metrics by name; empty if the run has not finished."""
        return read_metrics(self.path)

    def records(self) -> list[SampleRecord]:
        """All samples of the run's data, in their order there."""
        return from_csv(self.path / SAMPLES_FILE)

    def input_spec(self) -> InputSpec:
        """What the network expects of its inputs, as in training: a later version of its library may differ."""
        stored: dict[str, Any] = json.loads((self.path / INPUT_SPEC_FILE).read_text(encoding="utf-8"))
        if "tokenizer" in stored:
            return TokenSpec(**stored)
        return ImageSpec(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})

    def backbone_facts(self) -> dict[str, Any]:
        """Keywords that rebuild the backbone, beside the configuration; empty if that is enough."""
        file = self.path / BACKBONE_FILE
        if not file.is_file():
            return {}
        return {"settings": json.loads(file.read_text(encoding="utf-8")), "input_spec": self.input_spec()}

    # What a run writes.

    def begin(
        self,
        config_yaml: str,
        overrides: Sequence[str],
        data: DataModule,
        backbone_settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder and write what the run is. Call it when all that a user may get wrong has been built.

        Raises:
            UserError: another process trains in the folder.
        """
        if not ranks().is_first:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._hold()
        (self.path / FAILURE_FILE).unlink(missing_ok=True)
        self._write(CONFIG_FILE, config_yaml)
        self._write(DATA_FILE, data.report())
        self._write(SAMPLES_FILE, as_csv(data.records()))
        assert data.input_spec is not None
        self._write(INPUT_SPEC_FILE, json.dumps(asdict(data.input_spec), indent=2))
        if backbone_settings is not None:
            self._write(BACKBONE_FILE, json.dumps(backbone_settings, indent=2))
        if self.checkpoint is None:
            self._write(OVERRIDES_FILE, json.dumps(list(overrides)))

    @contextmanager
    def recording(self, config: dict[str, Any], loggers: list[Logger]) -> Iterator[None]:
        """Write `train.log`, give the configuration to the loggers, and close them at the end.

        An error about a non-finite loss is told the checkpoint to go on from. After any error `train.log` ends with the
        whole traceback.
        """
        thaw_log = logging.getLogger("thaw")
        is_first = ranks().is_first
        file = logging.FileHandler(self.path / LOG_FILE, encoding="utf-8") if is_first else logging.NullHandler()
        thaw_log.addHandler(file)
        try:
            for logger in loggers:
                logger.log_hyperparams(config)
            yield
        except Exception as error:
            if isinstance(error, NonFiniteLossError):
                last = self.checkpoints / LAST
                hint = f"The last good checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
                error.args = (f"{error} {hint}",)
            # Only into the file: the command prints the error, shortened and last of all.
            whole = "".join(traceback.format_exception(error)).rstrip()
            file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, whole, (), None))
            raise
        finally:
            close(loggers)
            thaw_log.removeHandler(file)
            file.close()
            self._lock.release()

    def save(self, module: FineTuningModule, trainer: Trainer, monitor: str, mode: str) -> dict[str, float]:
        """Write weights, class names, confusion and final metrics, after the test of the best checkpoint's weights.

        Args:
            module: holds the best weights.
            trainer: has tested them.
            monitor: name of the metric that decides what is best.
            mode: max or min.

        Returns:
            The metrics of the best checkpoint's epoch and of the test, by name.
        """
        best = best_checkpoint(trainer)
        trained = read_checkpoint(best) if best else {}
        metrics = logged_metrics(trainer)
        if best:  # what the trainer holds of other splits is the last epoch's
            metrics = {**trained["metrics"], **{n: value for n, value in metrics.items() if n.endswith("/test")}}
        if not ranks().is_first:
            return metrics
        state = module.network.state_dict()
        if is_sharded(trainer.strategy):  # here are pieces; checkpoints have the whole
            state = {name: trained["state_dict"][f"network.{name}"] for name in state}
        tensors = {name: value.contiguous() for name, value in state.items()}
        temporary = self.weights.with_suffix(".partial")
        save_file(tensors, temporary, metadata={"class_names": json.dumps(module.class_names)})
        os.replace(temporary, self.weights)
        self._write(CLASS_NAMES_FILE, json.dumps(module.class_names, ensure_ascii=False, indent=2))
        if module.confusion is not None:
            self._write(CONFUSION_FILE, confusion_csv(Confusion(module.class_names, module.confusion.tolist())))
        results = {
            "monitor": monitor,
            "mode": mode,
            "best": metrics.get(monitor),
            "epoch": trained.get("epoch"),
            "best_checkpoint": self._relative(best) if best else None,
            "order": order_of(trainer),
            "seconds": round(time.monotonic() - self.started, 2),
            "metrics": metrics,
        }
        self._write(METRICS_FILE, json.dumps(results, indent=2))
        AtomicCheckpointIO().remove_checkpoint(self.checkpoints / PREVIOUS)  # nothing overwrites the last one any more
        return metrics

    def report(self) -> str:
        """The final metrics and where the run folder is."""
        table = split_table(self.metrics())
        return f"{table}\nrun folder: {self.path}\nagain: python -m thaw.evaluate run={self.path}"

    @property
    def in_use(self) -> bool:
        """Whether a process trains in the folder."""
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False

    def _hold(self) -> None:
        """Lock the folder while it is trained in. Raises UserError if another process holds it."""
        try:
            self._lock.acquire(timeout=5)  # another one may only be looking whether it is free
        except Timeout:
            raise UserError(
                f"{self.path} is in use: another process trains there, and holds its {LOCK_FILE}. run_folder=... "
                f"names another"
            ) from None
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            log.warning("%s cannot be locked (%s): do not train there twice at once", self.path, error)

    def _relative(self, file: Path) -> str:
        return str(file.relative_to(self.path) if file.is_relative_to(self.path) else file)

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text + "\n")


def load_best(trainer: Trainer, module: FineTuningModule) -> None:
    """Load the best checkpoint's weights into the module.

    The last weights stay if no checkpoint was kept, or if each process has pieces of them.
    """
    if (best := best_checkpoint(trainer)) and not is_sharded(trainer.strategy):
        module.load_state_dict(read_checkpoint(best)["state_dict"])


def best_checkpoint(trainer: Trainer) -> Path | None:
    """File with the best monitored metric; None if no checkpoint was kept, as in fast_dev_run."""
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    return Path(path) if path else None


def weights_file(path: str | Path) -> Path:
    """The weights to start from: those of a run folder, or a file."""
    path = Path(path)
    return path / WEIGHTS_FILE if path.is_dir() else path
