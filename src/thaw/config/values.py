"""Types and ranges of the keys that thaw reads, judged as soon as a configuration is composed, before torch is loaded.

Keys that are not here are judged by whoever takes them: a user's own class, torch, Lightning. So are values that depend
on the data or on the network.
"""

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw.config.monitor import require_measured
from thaw.errors import UserError
from thaw.runs.files import require_run


@dataclass(frozen=True)
class Kind:
    """What values a key takes."""

    words: str
    """What they are, for messages: `a whole number from 1 on`."""
    fits: Callable[[Any], bool]
    names: tuple[str, ...] = ()
    """The values, if they are names."""


def whole(least: int, most: float = math.inf) -> Kind:
    """A whole number."""
    words = f"a whole number from {least} {'on' if most == math.inf else f'to {most}'}"
    return Kind(words, lambda value: type(value) is int and least <= value <= most)


def number(least: float = 0, most: float = math.inf, below: float = math.inf) -> Kind:
    """A number from `least` to `most`, or to below `below`."""
    end = f"to {most:g}" if most < math.inf else f"to below {below:g}" if below < math.inf else "on"
    words = f"a number from {least:g} {end}"
    return Kind(words, lambda value: type(value) in (int, float) and least <= value <= most and value < below)


def one_of(*names: str) -> Kind:
    """One of some names."""
    words = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return Kind(words, lambda value: value in names, names)


def null_or(kind: Kind) -> Kind:
    """Null, or a value of `kind`."""
    words = f"null, {kind.words}" if kind.names else f"null or {kind.words}"
    return Kind(words, lambda value: value is None or kind.fits(value), kind.names)


def either(first: Kind, second: Kind) -> Kind:
    """A value of one of two kinds."""
    words, names = f"{first.words}, or {second.words}", first.names + second.names
    return Kind(words, lambda value: first.fits(value) or second.fits(value), names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


PRECISIONS = (
    *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "64", "bf16"),
    *("transformer-engine", "transformer-engine-float16"),
)
PRECISION = Kind(f"{', '.join(PRECISIONS)}", lambda value: str(value) in PRECISIONS, PRECISIONS)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
BATCHES = Kind(
    "a number of batches from 1 on, or a share above 0 and up to 1.0",
    lambda value: value >= 1 if type(value) is int else type(value) is float and 0 < value <= 1,
)
VAL_BATCHES = Kind(
    "a number of batches from 0 on, or a share from 0.0 to 1.0", lambda value: BATCHES.fits(value) or value == 0
)
DEVICES = Kind(
    "a number of devices, a list of their numbers, -1 or auto",
    lambda value: (
        value in ("auto", "-1", -1) or isinstance(value, list) or (str(value).replace(",", "").isdigit() and value != 0)
    ),
)
COLUMNS = Kind(
    "a column, or a list of two for pairs of texts, [premise,hypothesis]",
    lambda value: len(value) == 2 and all(map(_is_name, value)) if isinstance(value, list) else _is_name(value),
)
LABEL_COLUMNS = Kind(
    "a column, or a list of several, [cat,dog]",
    lambda value: all(map(_is_name, value)) if isinstance(value, list) else _is_name(value),
)
RATES = Kind(
    "a mapping from batchnorm, other, scratch and adapter to mappings with lr, backbone_lr_scale, lr_decay, numbers "
    "from 0 on",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(rates, dict) and all(map(number().fits, rates.values())) for rates in value.values())
    ),
)
PHASES = Kind("a list of phases, [{epochs: 3, train: [head]}, ...]", lambda value: isinstance(value, list))
PATTERNS = Kind(
    'a list of patterns, ["*.query", "*.value"]',
    lambda value: isinstance(value, list) and bool(value) and all(isinstance(pattern, str) for pattern in value),
)
MAPPING = Kind("a mapping with _target_", lambda value: isinstance(value, dict) and "_target_" in value)

ANYWHERE = {
    "seed": whole(0, 2**32 - 1),
    "report": FLAG,
    "pretrained": FLAG,
    "channels_last": FLAG,
    "gradient_checkpointing": FLAG,
    "compile": FLAG,
    "refit": one_of("validation", "off"),
    "monitor.mode": null_or(one_of("max", "min")),
    # The data
    "data.seed": whole(0, 2**32 - 1),
    "data.batch_size": whole(1),
    "data.global_batch_size": null_or(whole(1)),
    "data.num_workers": null_or(whole(0)),
    "data.shuffle": FLAG,
    "data.balance": one_of("none", "loss", "sampler"),
    "data.val_fraction": number(0, below=1),
    "data.test_fraction": number(0, below=1),
    "data.labels_per_class": null_or(whole(1)),
    "data.fold": null_or(whole(0)),
    "data.folds": whole(2),
    "data.augment": one_of("none", "light", "strong"),
    "data.views": whole(1),
    "data.flip_probability": number(0, most=1),
    "data.max_length_tokens": null_or(whole(1)),
    "data.pad_multiple_tokens": whole(1),
    # The optimizer's parameter groups
    "optimizer.lr": null_or(number()),
    "optimizer.backbone_lr_scale": null_or(number()),
    "optimizer.lr_decay": null_or(number()),
    "optimizer.weight_decay": number(),
    "optimizer.lr_by_processes": one_of("none", "linear", "sqrt"),
    "optimizer.fused": null_or(FLAG),
    "optimizer.rates": RATES,
    # The cache
    "caching.budget_gb": number(),
    "caching.dtype": null_or(one_of("float32", "float16", "bfloat16")),
    "caching.batch_size": whole(1),
    # The trainer. Lightning looks at some of them late, or not at all.
    "trainer.devices": DEVICES,
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.precision": null_or(PRECISION),
    "trainer.num_nodes": whole(1),
    "trainer.gradient_clip_val": null_or(number()),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.log_every_n_steps": null_or(whole(0)),
    "trainer.num_sanity_val_steps": null_or(whole(-1)),
    "trainer.limit_train_batches": null_or(BATCHES),
    "trainer.limit_val_batches": null_or(VAL_BATCHES),
    "trainer.check_val_every_n_epoch": null_or(whole(1)),
    "trainer.deterministic": null_or(either(FLAG, one_of("warn"))),
    "trainer.sync_batchnorm": FLAG,
    # The other commands
    "split": one_of("test", "val"),
    "format": one_of("state_dict", "safetensors", "timm", "huggingface", "exported_program", "onnx"),
    "precision": one_of("fp32", "fp16", "int8"),
    "agreement": null_or(number(0, most=1)),
    "samples": whole(1),
    "line_points": whole(0),
    "calibrate": FLAG,
    "trust": FLAG,
    "kind": one_of("thin", "whole"),
    "quotes": null_or(FLAG),
    "column": null_or(COLUMNS),
    "top_k": whole(1),
    "batch_size": whole(1),
    "num_workers": null_or(whole(0)),
    "rank": null_or(whole(0)),
    "budget_gb": null_or(number()),
}
"""Kinds of the keys that thaw reads itself."""

OF_OUR_CLASSES = {
    "backbone.image_size_px": null_or(whole(1)),
    "backbone.units": one_of("words", "pieces"),
    "backbone.vocabulary_size": whole(3),
    "backbone.embedding_size": null_or(whole(1)),
    "backbone.hidden_size": whole(1),
    "backbone.num_layers": whole(1),
    "backbone.dropout": number(0, below=1),
    "adapter.rank": whole(1),
    "adapter.alpha": number(),
    "adapter.dropout": number(0, below=1),
    "adapter.targets": null_or(PATTERNS),
    "head.hidden_size": whole(1),
    "head.activation": one_of("gelu", "relu", "tanh"),
    "head.dropout": number(0, below=1),
    "loss.label_smoothing": number(0, most=1),
    "freezing.epochs": whole(1),
    "freezing.epochs_per_stage": null_or(whole(1)),
    "freezing.probe_epochs": null_or(whole(1)),
    "freezing.full_lr_scale": number(),
    "freezing.rounds": whole(1),
    "freezing.batchnorm": one_of("auto", "frozen", "train"),
    "freezing.phases": PHASES,
    "schedule.warmup_fraction": number(0, below=1),
    "schedule.start_factor": number(),
    "schedule.final_factor": number(),
    "data.on_bad": one_of("error", "leave_out"),
    "data.quotes": FLAG,
    "data.text": COLUMNS,
    "data.label": LABEL_COLUMNS,
    "data.label_column": LABEL_COLUMNS,
    "data.group": null_or(Kind("a column, or a regular expression on the path", lambda value: isinstance(value, str))),
    "data.download": FLAG,
    "data.max_value": null_or(whole(1, 65535)),
    "data.class_level": null_or(whole(1)),
    "callbacks.checkpoint.save_top_k": whole(-1),
    "callbacks.checkpoint.last_every_seconds": number(),
    "callbacks.checkpoint.every_minutes": null_or(number()),
    "callbacks.early_stopping.patience": whole(0),
    "callbacks.early_stopping.min_delta": number(),
    "callbacks.pictures.every_epochs": null_or(whole(1)),
    "callbacks.pictures.samples": whole(0),
    "callbacks.pictures.histograms": FLAG,
    "callbacks.ema.decay": number(0, below=1),
    "callbacks.pruning.warmup_epochs": whole(0),
    "callbacks.pruning.others": whole(1),
    "callbacks.pruning.factor": whole(2),
}
"""Kinds of the arguments of classes and functions in `conf/`; those of a user's own may mean something else."""

SET_ELSEWHERE = {
    "max_epochs": "the plan says how many epochs there are, type freezing.epochs=... (or what conf/freezing has)",
    "overfit_batches": "type debug=overfit",
    "plugins": "type trainer.precision=..., and checkpoints are written by a plugin of ours",
    "callbacks": "type callbacks=..., or +callbacks.mine._target_=...",
    "logger": "type logger=...",
    "default_root_dir": "type run_folder=...",
    "use_distributed_sampler": "the sampler already divides each batch among the processes",
}
"""Keys of Lightning's Trainer that the configuration of a run sets in another place, and where."""
NAMED_PARTS = ("callbacks", "logger", "task.metrics")
"""Parts that hold parts of any name, each with a `_target_`."""


def require_valid(cfg: DictConfig) -> None:
    """Judge what can be judged without data, network and torch.

    Raises:
        UserError: values are missing, or not of their kind; the message has a line for each.
    """
    resumes = cfg.get("resume") not in (None, "auto")  # the run folder has the values
    faults = [*(() if resumes else _missing(cfg)), *_unfit(cfg), *_set_elsewhere(cfg)]
    if faults:
        raise UserError("\n".join(faults))
    if "monitor" in cfg and not resumes:
        require_measured(cfg)
    for key in ("run", "init_from", "resume"):
        path = cfg.get(key)
        if path is not None and path != "auto":
            _require_place(key, Path(str(path)).expanduser())


def _missing(cfg: DictConfig) -> Iterator[str]:
    if keys := sorted(OmegaConf.missing_keys(cfg)):
        yield f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing: type {'=... '.join(keys)}=..."


def _unfit(cfg: DictConfig) -> Iterator[str]:
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for key, kind in {**ANYWHERE, **OF_OUR_CLASSES}.items():
        *path, name = key.split(".")
        part = _part(plain, path)
        if name not in part or part[name] == "???" or (key in OF_OUR_CLASSES and not _is_ours(part)):
            continue
        if path and OmegaConf.is_interpolation(OmegaConf.select(cfg, ".".join(path)), name):  # judged where it stands
            continue
        if not kind.fits(part[name]):
            close = difflib.get_close_matches(str(part[name]), kind.names, n=1, cutoff=0.5)
            yield f"{key} is {kind.words}, not {part[name]}" + (f": type {key}={close[0]}" if close else "")
    for key in NAMED_PARTS:
        for name, part in _part(plain, key.split(".")).items():
            if part is not None and not MAPPING.fits(part):
                yield f"{key}.{name} is {MAPPING.words}, not {part}: type +{key}.{name}._target_=<module>.<name>"


def _set_elsewhere(cfg: DictConfig) -> Iterator[str]:
    for key, instead in SET_ELSEWHERE.items() if "run_folder" in cfg else ():
        if key in cfg.trainer:
            yield f"trainer.{key} would be ignored: {instead}"


def _part(plain: Any, path: list[str]) -> dict[str, Any]:
    """The mapping at a place of a configuration; empty if there is none."""
    for word in path:
        plain = plain.get(word) if isinstance(plain, dict) else None
    return plain if isinstance(plain, dict) else {}


def _is_ours(part: dict[str, Any]) -> bool:
    return str(part.get("_target_", "")).startswith(("thaw.", "torch.", "torchvision.", "lightning."))


def _require_place(key: str, path: Path) -> None:
    """Raise UserError unless there is a run folder at `path`; or weights, where the key takes them."""
    if key == "run" or (key == "init_from" and path.is_dir() and not any(path.glob("*model.*"))):
        require_run(path)
    elif key == "resume":
        require_run(path.parent.parent if path.suffix == ".ckpt" and path.is_file() else path)
    elif not path.exists():
        raise UserError(f"{key}={path} does not exist: name a run folder, or a file of weights")
