"""A run folder: everything that one run produced, and the only argument that later commands need.

config.yaml  overrides.json      the resolved configuration; the overrides that were typed
data.txt                         samples of each class and split, what was left out, and warnings
samples.csv                      label and split of every sample
input_spec.json  backbone.json   what the network expects of its inputs; more settings of the backbone, if it has any
class_names.json                 in the order of the network's outputs
checkpoints/best-*.ckpt last.ckpt manifest.json
                                 the best ones and the last, with their checksums; while it runs also previous.ckpt
metrics.csv  metrics.json        every value logged; the final ones
report.html                      what came out, for people
phases.json  environment.json    what each phase trains; versions, commit and device
outputs_{val,test}.npz           the best weights' logits of every sample, with labels and indices
calibration.json baselines.json  the temperature that makes probabilities honest; scores of simple methods
pictures/                        what loggers would show, if no logger holds pictures
confusion_test.csv               samples by true class (row) and predicted class (column), if there is a test split
weights.safetensors              weights of the best checkpoint, with the head that was kept
probe.safetensors                the head when the backbone began to train, if it was frozen before
adapter/                         with an adapter: what it learnt, for its own library, and the head
module.safetensors               what the user's own LightningModule has beside its network, if anything
tensorboard/ wandb/              as conf/logger says
train.log                        what was printed on the console, and the whole traceback of an error
manifest.json                    checksums of what later commands read; see `RunFolder.intact`
soup.json                        of weights that were averaged: what was tried; there are no checkpoints then
crash/ crash_rank1/              a repro kit, if a step or loading a batch failed: see replaying/kit.py
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from thaw.arguments import for_shell
from thaw.data.module import DataModule
from thaw.data.samples import SampleRecord, as_csv, from_csv
from thaw.distributed.ranks import ranks
from thaw.errors import UserError
from thaw.manifest import drop_from_manifest, naming_damage, read_json, replacing, require_intact
from thaw.models.weights import file_of_weights, read_checkpoint, read_class_names
from thaw.runs.files import (
    BACKBONE_FILE,
    CALIBRATION_FILE,
    CHECKPOINTS,
    CONFIG_FILE,
    DATA_FILE,
    FAILURE_FILE,
    INPUT_SPEC_FILE,
    LOCK_FILE,
    METRICS_CSV,
    METRICS_FILE,
    OVERRIDES_FILE,
    SAMPLES_FILE,
    SOUP_FILE,
    WEIGHTS_FILE,
    is_run,
)
from thaw.storage import require_writable
from thaw.tasks.task import Task
from thaw.training.checkpoint_io import newest_intact
from thaw.types import ImageSpec, InputSpec, TokenSpec

log = logging.getLogger(__name__)

OF_A_RUN = {"global_step", "class_names", "state_dict", "optimizer_states", "epoch_metrics", "order"}
"""Keys that every checkpoint of a run has."""


AT_START = {CONFIG_FILE, OVERRIDES_FILE, DATA_FILE, SAMPLES_FILE, INPUT_SPEC_FILE, BACKBONE_FILE}
"""Files that a run writes before it trains; a resumed run reads them."""


class RunFolder:
    """A folder that belongs to one run.

    Args:
        path: the folder.
        checkpoint: file that the run resumes from; None for a new run and for a finished one.
        checkpoints: folder of its checkpoints, if they lie elsewhere.
    """

    def __init__(self, path: str | Path, checkpoint: Path | None = None, checkpoints: str | Path | None = None):
        self.path, self.checkpoint = Path(str(path)).resolve(), checkpoint
        self.checkpoints = self.path / CHECKPOINTS if checkpoints is None else Path(checkpoints).resolve()
        self.started = time.monotonic()
        self._lock = FileLock(self.path / LOCK_FILE)
        self._opened_as = self._trained_state()

    # What a run folder holds.

    def intact(self, name: str) -> Path:
        """The file of this name, which need not exist. Raises UserError if it is not as the run wrote it.

        `metrics.csv` is verified between two starts of the run: while it trains, the file grows.
        """
        return require_intact(self.path / name, self._advice(name))

    def text(self, name: str) -> str:
        """Content of a text file; empty if there is none. Raises UserError, see `intact`."""
        file = self.intact(name)
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def json(self, name: str, kind: type = dict) -> Any:
        """Content of a JSON file; an empty `kind` if there is none. Raises UserError, see `read_json`."""
        return read_json(self.path / name, kind, self._advice(name))

    def _advice(self, name: str) -> str:
        """What to do if a file is damaged."""
        if name in AT_START:
            otherwise = "the run cannot be used"
        elif (self.path / SOUP_FILE).is_file():
            otherwise = "make the average again by python -m thaw.soup"
        elif name == METRICS_CSV:
            otherwise = "delete it, and go on without what it held"
        else:
            otherwise = f"let the run write it again: python -m thaw.train {for_shell('resume', self.path)}"
        return f"Bring it back from a copy. If there is none, {otherwise}"

    @property
    def weights(self) -> Path:
        """The file of the best checkpoint's weights; it exists if the run has finished."""
        return self.path / WEIGHTS_FILE

    @property
    def best_weights(self) -> Path | None:
        """The best weights so far: `weights` of a finished run, else its best checkpoint; None if there is none yet.

        Raises UserError if they are not as the run wrote them.
        """
        if self.weights.is_file():
            return self.intact(WEIGHTS_FILE)
        last = newest_intact(self.checkpoints)
        states = read_checkpoint(last)["callbacks"].values() if last is not None else ()
        names = [state["best_model_path"] for state in states if state.get("best_model_path")]
        best = next((file for name in names if (file := self.checkpoints / name).is_file()), None)
        advice = f"Train on: python -m thaw.train {for_shell('resume', self.path)}"
        return None if best is None else require_intact(best, advice)

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
        """Optimizer steps that were done before this start of the run; 0 for a new run."""
        return 0 if self.checkpoint is None else self.resumed["global_step"]

    def class_names(self) -> list[str]:
        """Class names, in the order of the network's outputs."""
        if self.checkpoint is not None:
            return self.resumed["class_names"]
        assert self.best_weights is not None, f"{self.path} has no weights"
        with naming_damage(self.best_weights):
            names = read_class_names(self.best_weights)
        if names is None:
            raise UserError(f"{self.best_weights} names no classes: thaw did not write it. Bring it back from a copy")
        return names

    def metrics(self) -> dict[str, float]:
        """Final metrics by name; empty if the run has not finished."""
        results = self.json(METRICS_FILE)
        with naming_damage(self.path / METRICS_FILE):
            return {name: float(value) for name, value in results["metrics"].items()} if results else {}

    def calibrate(self, task: Task) -> None:
        """Make predictions honest by what the run fitted to validation. Raises UserError if it has no such thing."""
        if not task.gives_logits:
            raise UserError(f"calibrate=true is for one class a sample, not for {type(task).__name__}: leave it out")
        file = self.path / CALIBRATION_FILE
        if not file.is_file():
            raise UserError(f"{self.path} has no {CALIBRATION_FILE}: it needs validation samples. Type calibrate=false")
        with naming_damage(file):
            task.calibrate(self.json(CALIBRATION_FILE))

    def records(self) -> list[SampleRecord]:
        """All samples of the run's data, in their order there."""
        file = self.intact(SAMPLES_FILE)
        with naming_damage(file):
            return from_csv(file)

    def input_spec(self) -> InputSpec:
        """What the network expected of its inputs in training: a later version of its library may expect another."""
        stored = self.json(INPUT_SPEC_FILE)
        with naming_damage(self.path / INPUT_SPEC_FILE):
            if "tokenizer" in stored:
                return TokenSpec(**stored)
            return ImageSpec(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})

    def backbone_facts(self) -> dict[str, Any]:
        """Keywords that rebuild the backbone, in addition to the configuration; empty if that is enough."""
        if not (self.path / BACKBONE_FILE).is_file():
            return {}
        return {"settings": self.json(BACKBONE_FILE), "input_spec": self.input_spec()}

    def begin(
        self,
        config_yaml: str,
        overrides: Sequence[str] | None,
        data: DataModule,
        backbone_settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Create and lock the folder, and write the files that describe the run; `overrides`: None if none trained it.

        Call it after all parts that may raise UserError are built, so that a mistake leaves no folder behind.

        Raises:
            UserError: another process trains in the folder, or has trained there since this object was made; or nothing
                can be written there.
        """
        if not ranks().is_first:
            return
        copy = "copy the run folder to where it can be written, and resume the copy"
        require_writable(self.path, copy if self.checkpoint is not None else "name another place, run_folder=...")
        self._hold()
        if self._trained_state() != self._opened_as:  # by a process that has ended since
            self.release()
            raise UserError(
                f"another process has trained in {self.path} since this command began: "
                f"{for_shell('resume', self.path)} continues its run, run_folder=... names another folder"
            )
        if self.checkpoint is not None:
            self.intact(METRICS_CSV)
        drop_from_manifest(self.path / METRICS_CSV)
        (self.path / FAILURE_FILE).unlink(missing_ok=True)
        self.write(CONFIG_FILE, config_yaml)
        self.write(DATA_FILE, data.report())
        self.write(SAMPLES_FILE, as_csv(data.records()))
        assert data.input_spec is not None
        self.write(INPUT_SPEC_FILE, json.dumps(asdict(data.input_spec), indent=2))
        if backbone_settings is not None:
            self.write(BACKBONE_FILE, json.dumps(backbone_settings, indent=2))
        if self.checkpoint is None and overrides is not None:
            self.write(OVERRIDES_FILE, json.dumps(list(overrides)))

    def report(self) -> str:
        """Where the run folder is, and how to measure the run again."""
        return f"run folder: {self.path}\nagain: python -m thaw.evaluate {for_shell('run', self.path)}"

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

    def _trained_state(self) -> dict[Path, int]:
        """When each file was written last that training leaves, nanoseconds."""
        files = (self.path / METRICS_FILE, *self.checkpoints.glob("*.ckpt"))
        return {file: file.stat().st_mtime_ns for file in files if file.is_file()}

    def _hold(self) -> None:
        """Lock the folder while it is trained in. Raises UserError if another process holds it."""
        try:
            self._lock.acquire(timeout=5)  # another process may only be checking whether it is free
        except Timeout:
            raise UserError(
                f"{self.path} is in use: another process trains there, and holds its {LOCK_FILE}. run_folder=... "
                f"names another"
            ) from None
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            log.warning("%s cannot be locked (%s): do not train there twice at once", self.path, error)

    def release(self) -> None:
        """Let other processes train in the folder."""
        self._lock.release()

    def write(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all, and take it into the manifest."""
        with replacing(self.path / name) as temporary:  # names of samples may be in no encoding
            temporary.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")


def weights_file(path: str | Path) -> Path:
    """The weights to start from, see `file_of_weights`, or of a run folder. Raises UserError if they are damaged."""
    if is_run(path):
        return RunFolder(path).intact(WEIGHTS_FILE)
    return require_intact(file_of_weights(path), "Bring it back from a copy")
