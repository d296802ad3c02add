"""A search over configurations, as one of its workers does it: claim a trial, run it, until no trial is left."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from thaw.config.failures import message
from thaw.config.space import read_space
from thaw.errors import UserError
from thaw.manifest import replacing
from thaw.runs.files import CHECKPOINTS, FAILURE_FILE, LOCK_FILE
from thaw.runs.trials import FAILED, UNFINISHED, ranked, read_trials, record_failure
from thaw.sweeping.claims import claimed, is_locked, locked
from thaw.sweeping.study import Study

log = logging.getLogger(__name__)

SEARCH_FILE = "search.json"
"""What the trials of a folder were chosen by: other searches may not go on there."""
LEAST = {"n_trials": 1, "n_jobs": 1, "seed": 0, "keep": 0, "max_failures": 1}
"""Whole numbers of the settings."""
MOST_STARTS = 3
"""Starts of a trial whose process dies each time."""


def search(
    config: DictConfig,
    settings: Mapping[str, Any],
    typed: Sequence[str],
    loader: ConfigLoader,
    launch: Callable[[Sequence[str], int], None],
) -> None:
    """Work on the search in the folder `hydra.sweep.dir` until `n_trials` have ended or others work on the rest.

    Args:
        config: the composed configuration.
        settings: see conf/hydra/sweeper/search.yaml.
        typed: overrides; those in Hydra's syntax of sweeps are searched over.
        loader: Hydra's.
        launch: runs a trial with these overrides to its end, whatever it comes to; its number is for Hydra's own use.

    Raises:
        UserError: nothing varies, the folder holds another search, a setting is wrong, an objective was not measured,
            the disk is full.
        HydraException: there is no such key or choice.
    """
    sweep = Path(config.hydra.sweep.dir).absolute()
    space, fixed = read_space([*(f"{key}={value}" for key, value in settings["params"].items()), *typed], loader)
    if not space:
        raise UserError("nothing varies: type a space, such as optimizer.lr='tag(log,interval(1e-4,1e-2))'")
    require_settings(settings)
    study = _study(space, settings)
    most = min(settings["n_trials"], study.most_trials)
    loader.load_sweep_config(config, [*fixed, *study.suggest(0, [])])  # a key that is mistyped would fail in each trial
    sweep.mkdir(parents=True, exist_ok=True)
    _require_same(sweep, _description(space, fixed, settings))
    starts = Counter[int]()
    with _more_workers(settings["n_jobs"] - 1):
        while True:
            with claimed(sweep, most, study) as claim:
                if claim is None:
                    break
                place = (f"hydra.sweep.dir={sweep}", f"hydra.sweep.subdir={claim.number}")
                starts[claim.number] += 1
                try:
                    launch([*fixed, *claim.overrides, *place], claim.number)
                except Exception as error:  # whatever a launcher, or composing the configuration, raises
                    if isinstance(error, HydraException) or starts[claim.number] == MOST_STARTS:
                        record_failure(claim.folder, claim.overrides, message(error))
                    else:
                        log.warning("trial %s came to no end, and is started again: %s", claim.number, message(error))
                _require_room(claim.folder)
            tidy(sweep, settings["keep"], study, settings["storage"])
            if _too_many_failed(sweep, settings["max_failures"]):
                break


def _study(space: Mapping[str, Any], settings: Mapping[str, Any]) -> Study:
    """The study. Raises UserError if Optuna is not installed, or the sampler does not take its settings."""
    node = settings["sampler"]
    own = {str(key): value for key, value in node.items() if key not in ("_target_", "_partial_")}
    try:
        sampler = partial(get_method(node._target_), **own)
        return Study(space, sampler, settings["seed"], settings["objectives"] or {})
    except (ImportError, HydraException) as error:
        raise UserError(f'{node._target_} needs Optuna: type pip install -e ".[sweep]"') from error
    except (TypeError, ValueError) as error:
        raise UserError(f"hydra.sweeper.sampler: {node._target_} does not take {own}: {error}") from error


def _description(space: Mapping[str, Any], fixed: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the trials are chosen by, as JSON has it."""
    description = {
        "space": {key: str(kind) for key, kind in space.items()},
        "fixed": sorted(fixed),
        **{key: settings[key] for key in ("sampler", "seed", "objectives")},
    }
    return json.loads(json.dumps(description, default=OmegaConf.to_container))


def require_settings(settings: Mapping[str, Any]) -> None:
    """Raise UserError if a number of conf/hydra/sweeper/search.yaml is none, or an objective neither max nor min."""
    for key, least in LEAST.items():
        value = settings[key]
        if not ((isinstance(value, int) and value >= least) or (value is None and key == "max_failures")):
            raise UserError(f"hydra.sweeper.{key} is a whole number from {least} on, not {value}")
    for name, mode in (settings["objectives"] or {}).items():
        if mode not in ("max", "min"):
            raise UserError(f"hydra.sweeper.objectives: {name} is max or min, not {mode}")


def _require_same(sweep: Path, about: dict[str, Any]) -> None:
    """Write what the search of a folder is. Raises UserError if the folder holds another one."""
    file = sweep / SEARCH_FILE
    with locked(sweep / LOCK_FILE):
        if not file.exists():
            if trials := read_trials(sweep):
                raise UserError(
                    f"{sweep} holds trials of a sweep that is no search, such as {trials[0].name}: name another "
                    f"folder, hydra.sweep.dir=..."
                )
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(about, indent=2), encoding="utf-8")
            return
        found = json.loads(file.read_text(encoding="utf-8"))
    different = [name for name in about if found.get(name) != about[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{sweep} holds another search: its {name} is {found.get(name)}, and now it is {about[name]}. Type what "
            f"was typed for it, or name another folder, hydra.sweep.dir=..."
        )


@contextmanager
def _more_workers(number: int) -> Iterator[None]:
    """Run so many more workers with the same command, each a process of its own; wait for them at the end."""
    command = [*sys.orig_argv, "hydra.sweeper.n_jobs=1", "~hydra.callbacks.summary"]
    workers = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def tidy(sweep: Path, keep: int, study: Study, storage: str | None) -> None:
    """Delete the checkpoints of trials that have ended, but for the best ones and for failed ones; copy the study."""
    with locked(sweep / LOCK_FILE):
        trials = read_trials(sweep)
        best = ranked(trials)[:keep]
        for trial in trials:
            is_of_use = trial in best or trial.state in (FAILED, UNFINISHED) or is_locked(trial.folder / LOCK_FILE)
            if not is_of_use:
                shutil.rmtree(trial.folder / CHECKPOINTS, ignore_errors=True)
        if storage is not None:
            study.copy_to(storage, sweep.name, trials)


def _require_room(trial: Path) -> None:
    """Raise UserError if a trial failed because the disk is full, as all others would; it has not failed then."""
    failure = trial / FAILURE_FILE
    if failure.is_file() and os.strerror(errno.ENOSPC) in (text := failure.read_text(encoding="utf-8")):
        failure.unlink()
        raise UserError(f"{text.splitlines()[0]} The same command then goes on with this search")


def _too_many_failed(sweep: Path, most: int | None) -> bool:
    """Whether so many trials have failed, which is said."""
    failed = [trial for trial in read_trials(sweep) if trial.state == FAILED]
    if most is None or len(failed) < most:
        return False
    log.warning("the search ends: hydra.sweeper.max_failures=%s, the last one: %s", most, failed[-1].message)
    return True
