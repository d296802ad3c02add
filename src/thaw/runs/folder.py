"""What a run folder holds; save one, continue one, restore a classifier from one.

config.yaml  overrides.json      the resolved configuration; what was typed for it
data.txt                         samples of each class and split, what was left out, what is odd
samples.csv                      the label and the split of every sample
input_spec.json  backbone.json   how the network wants its inputs; what else it takes to build it, if anything
class_names.json                 in the order of the network's outputs
checkpoints/best-*.ckpt last.ckpt manifest.json
                                 the best ones, the last; their checksums. While it runs also previous.ckpt
metrics.csv  metrics.json        every value logged; the final ones
confusion_test.csv               samples by true class (row) and predicted class (column), where there is a test split
weights.safetensors              the best checkpoint's weights, by stage
tensorboard/ wandb/              as conf/logger says
train.log
crash/ crash_rank1/              where a step or loading a batch failed: a crash kit, see replaying/kit.py
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from thaw.types import ImageSpec, InputSpec, TokenSpec
from thaw.models.weights import read_checkpoint, require_network
from thaw.training.checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO
from thaw.runs.confusion import CONFUSION_FILE, Confusion, confusion_csv
from thaw.data.samples import SampleRecord, as_csv, from_csv
from thaw.distributed.ranks import ranks
from thaw.distributed.sharded import is_sharded
from thaw.finetuning.phase import Phase, Plan
from thaw.runs.loggers import close
from thaw.tasks.metrics import split_table
from thaw.training.sample_order import order_of
from thaw.sweeping.trials import FAILURE_FILE, METRICS_FILE, OVERRIDES_FILE
from thaw.errors import UserError

if TYPE_CHECKING:
    from thaw.training.module import FineTuningModule
    from thaw.data.module import DataModule
    from thaw.models.network import Network

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
LOCK_FILE = ".lock"
CONFIG_FILE, DATA_FILE, SAMPLES_FILE, LOG_FILE = "config.yaml", "data.txt", "samples.csv", "train.log"
INPUT_SPEC_FILE, BACKBONE_FILE = "input_spec.json", "backbone.json"
CLASS_NAMES_FILE, WEIGHTS_FILE = "class_names.json", "weights.safetensors"


class RunFolder:
    """A folder that belongs to one run; `checkpoint` is the file it continues from, if it does."""

    def __init__(self, path: str | Path, checkpoint: Path | None = None):
        self.path, self.checkpoint = Path(path).resolve(), checkpoint
        self.started = time.monotonic()
        self._lock = FileLock(self.path / LOCK_FILE)

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS_FILE

    def config(self) -> DictConfig:
        """The configuration of the run, whole. Raises UserError where the folder is no run's."""
        file = self.path / CONFIG_FILE
        if not file.is_file():
            raise UserError(f"{self.path} is no run folder (it has no {CONFIG_FILE}): name one that thaw.train made")
        config = OmegaConf.load(file)
        assert isinstance(config, DictConfig)
        return config

    def metrics(self) -> dict[str, float]:
        """The final metrics of the run by name; empty where it did not come to its end."""
        file = self.path / METRICS_FILE
        return json.loads(file.read_text())["metrics"] if file.exists() else {}

    def first_step(self) -> int:
        """Optimizer steps done before this start of the run."""
        return 0 if self.checkpoint is None else self._continued()["global_step"]

    def align(self, data: "DataModule") -> None:
        """Where the run goes on: classes and splits of `data` as they were. ValueError where the data changed."""
        if self.checkpoint is None:
            return
        data.align(self._continued()["class_names"])
        samples = self.samples()
        data.split_as(samples)
        if new := len(data.targets) - len(samples):
            raise UserError(
                f"{new} samples were added to the data since this run began: it would not end as it was to end. "
                f"Take them away, or start a new run from its weights: init_from={self.path}"
            )
        labels = Counter((sample, label) for sample, label, _ in samples)
        if changed := labels - Counter((sample, label) for sample, label, _ in data.recorded()):
            names = ", ".join(sample.name for sample, _ in list(changed)[:5])
            raise UserError(
                f"{sum(changed.values())} samples have other labels than when this run began ({names} ...): put them "
                f"back, or start a new run from its weights: init_from={self.path}"
            )

    def samples(self) -> list[SampleRecord]:
        """All samples of the run's data, in their order there."""
        return from_csv(self.path / SAMPLES_FILE)

    def _continued(self) -> dict[str, Any]:
        assert self.checkpoint is not None
        content = read_checkpoint(self.checkpoint)
        if (
            not {"global_step", "class_names", "state_dict", "optimizer_states", "epoch_metrics", "order"}
            <= content.keys()
        ):
            raise UserError(f"{self.checkpoint} is no checkpoint of a run. To start from its weights: init_from=...")
        return content

    def require_same_past(self, plan: Plan, before: Plan) -> None:
        """`before`: the plan so far. A run may go on with other phases to come, not with others behind it: ValueError
        where a phase that had begun differs."""
        if self.checkpoint is None:
            return
        begun = before.index(self._continued()["epoch"]) + 1
        was, now = ([_described(p, phase) for phase in p.phases[:begun]] for p in (before, plan))
        if was != now:
            past = ", ".join(f"{{epochs: {n}, train: [{', '.join(train)}], lr_scale: {s}}}" for n, train, s in was)
            raise UserError(
                f"the first {begun} phases of {self.path} have begun, and this plan has others. Type freezing=phases "
                f'"freezing.phases=[{past}, ...]" with further phases in place of ...'
            )

    def require_same_network(self, network: "Network") -> None:
        """Before Lightning loads the checkpoint: ValueError where it is unsafe, broken or of another network."""
        if self.checkpoint is not None:
            require_network(network.stages, self.checkpoint)

    def input_spec(self) -> InputSpec:
        """As it was in training: a later version of the library may have another opinion."""
        stored: dict[str, Any] = json.loads((self.path / INPUT_SPEC_FILE).read_text(encoding="utf-8"))
        if "tokenizer" in stored:
            return TokenSpec(**stored)
        return ImageSpec(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})

    def backbone_facts(self) -> dict[str, Any]:
        """What building the backbone again takes beside the configuration: nothing where it is all in a library."""
        file = self.path / BACKBONE_FILE
        if not file.is_file():
            return {}
        return {"settings": json.loads(file.read_text(encoding="utf-8")), "input_spec": self.input_spec()}

    def recorded_backbone(self, cfg: DictConfig) -> dict[str, Any]:
        """The facts of the run that this one goes on from, or whose vocabulary it starts from."""
        if self.checkpoint is not None:
            return self.backbone_facts()
        learns_words = OmegaConf.select(cfg, "backbone._partial_")
        return RunFolder(cfg.init_from).backbone_facts() if cfg.init_from is not None and learns_words else {}

    @contextmanager
    def recording(self, cfg: DictConfig, loggers: list[Logger]) -> Iterator[None]:
        """Keeps `train.log`, gives the configuration to the loggers and closes them at the end.

        If the loss ceases to be finite, the error names the checkpoint to go on from. `train.log` ends with the error.
        """
        thaws = logging.getLogger("thaw")
        first = ranks().is_first
        file = logging.FileHandler(self.path / LOG_FILE, encoding="utf-8") if first else logging.NullHandler()
        thaws.addHandler(file)
        try:
            for logger in loggers:
                logger.log_hyperparams(dict(OmegaConf.to_container(cfg, resolve=True)))  # type: ignore[arg-type]
            yield
        except Exception as error:
            if isinstance(error, FloatingPointError):
                last = self.path / CHECKPOINTS / LAST
                kept = f"The last good checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
                error.args = (f"{error} {kept}",)
            # On the console the command says it, last of all.
            file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, f"{type(error).__name__}: {error}", (), None))
            raise
        finally:
            close(loggers)
            thaws.removeHandler(file)
            file.close()
            self._lock.release()

    def save(self, classifier: "FineTuningModule", trainer: Trainer, monitor: DictConfig) -> dict[str, float]:
        """Weights, class names, final metrics and confusion. Called after the test of the best checkpoint's weights."""
        best = best_checkpoint(trainer)
        trained = read_checkpoint(best) if best else {}
        metrics = {**trained.get("metrics", {}), **{k: float(v) for k, v in trainer.callback_metrics.items()}}
        if not ranks().is_first:
            return metrics
        results = {
            "monitor": monitor.metric,
            "mode": monitor.mode,
            "best": metrics.get(monitor.metric),
            "epoch": trained.get("epoch"),
            "best_checkpoint": str(best.relative_to(self.path)) if best else None,
            "order": order_of(trainer),
            "seconds": round(time.monotonic() - self.started, 2),
            "metrics": metrics,
        }
        stages = classifier.network.stages.state_dict()
        if is_sharded(trainer.strategy):  # here are pieces; checkpoints have the whole
            stages = {name: trained["state_dict"][f"network.stages.{name}"] for name in stages}
        tensors = {name: value.contiguous() for name, value in stages.items()}
        temporary = self.weights.with_suffix(".partial")
        save_file(tensors, temporary, metadata={"class_names": json.dumps(classifier.class_names)})
        os.replace(temporary, self.weights)
        self._write(CLASS_NAMES_FILE, json.dumps(classifier.class_names, ensure_ascii=False, indent=2))
        if classifier.confusion is not None:
            confusion = Confusion(classifier.class_names, classifier.confusion.tolist())
            self._write(CONFUSION_FILE, confusion_csv(confusion))
        self._write(METRICS_FILE, json.dumps(results, indent=2))
        # Nothing will be written over the last one.
        AtomicCheckpointIO().remove_checkpoint(self.path / CHECKPOINTS / PREVIOUS)
        return metrics

    def begin(self, cfg: DictConfig, data: "DataModule", backbone_settings: Mapping[str, Any] | None = None) -> None:
        """Make the folder and write what the run is. Called when all that a user may get wrong has been built."""
        if not ranks().is_first:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._hold()
        (self.path / FAILURE_FILE).unlink(missing_ok=True)
        self._write(CONFIG_FILE, OmegaConf.to_yaml(cfg, resolve=True))
        self._write(DATA_FILE, data.report())
        self._write(SAMPLES_FILE, as_csv(data.recorded()))
        assert data.input_spec is not None
        self._write(INPUT_SPEC_FILE, json.dumps(asdict(data.input_spec), indent=2))
        if backbone_settings is not None:
            self._write(BACKBONE_FILE, json.dumps(backbone_settings, indent=2))
        if self.checkpoint is None:
            # Without the place: each trial of a sweep that runs in processes of its own is told one.
            typed = [override for override in typed_overrides() if not override.startswith("run_folder=")]
            self._write(OVERRIDES_FILE, json.dumps(typed))

    def _hold(self) -> None:
        """While it trains. Raises UserError where another process has the run."""
        try:
            self._lock.acquire(timeout=5)  # another one may only be looking whether it is free
        except Timeout:
            raise UserError(
                f"{self.path} is in use: another process trains there, and holds its {LOCK_FILE}. run_folder=... "
                f"names another"
            ) from None
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            log.warning("%s cannot be locked (%s): do not train there twice at once", self.path, error)

    @property
    def in_use(self) -> bool:
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False

    def report(self) -> str:
        """Where the run ended, for people."""
        lines = [
            split_table(self.metrics()),
            f"run folder: {self.path}",
            f"again: python -m thaw.evaluate run={self.path}",
        ]
        return "\n".join(lines)

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        temporary = self.path / f"{name}.partial"
        # Names of files may be of no encoding at all.
        temporary.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        os.replace(temporary, self.path / name)


def load_best(trainer: Trainer, classifier: "FineTuningModule") -> None:
    """Put the best checkpoint's weights into the classifier; the last ones stay where nothing is kept, or where each
    process has pieces of them."""
    if (best := best_checkpoint(trainer)) and not is_sharded(trainer.strategy):
        classifier.load_state_dict(read_checkpoint(best)["state_dict"])


def best_checkpoint(trainer: Trainer) -> Path | None:
    """The file with the best monitored metric; None where nothing is kept, as in fast_dev_run."""
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    return Path(path) if path else None


def weights_file(path: str | Path) -> Path:
    """The weights to start from: those of a run folder, or a file."""
    path = Path(path)
    return path / WEIGHTS_FILE if path.is_dir() else path


def typed_overrides() -> list[str]:
    """What was typed after the command, `key=value`; nothing where it runs from Python."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _described(plan: Plan, phase: Phase) -> tuple[int, list[str], float]:
    return phase.epochs, [stage for stage in plan.stages if phase.trains(stage)], phase.lr_scale
