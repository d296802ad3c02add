"""Runs a command under Hydra. What a user got wrong ends in one message and exit code 1, not in a traceback."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from thaw.distributed.environment import launched_rank
from thaw.distributed.launch import ProcessesFailedError
from thaw.distributed.ranks import is_lost, report_to_parent, reports
from thaw.sweeping.trials import record_failure

CONF = Path(__file__).resolve().parents[3] / "conf"

# What a user can cause. Anything else is a fault of the program, and keeps its traceback.
USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, FloatingPointError)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of the composed configuration into a command line: `python -m thaw.<config_name> key=value ...`.

    THAW_TRACEBACK=1 shows where an error came from.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @wraps(task)
        def one_trial(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except Exception as error:
                hydra_config = HydraConfig.get()
                if hydra_config.mode == RunMode.MULTIRUN:  # whatever it is, the other trials go on
                    folder = Path(hydra_config.runtime.output_dir)
                    record_failure(folder, list(hydra_config.overrides.task), _message(error))
                    return None
                _leave(error)

        under_hydra = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(one_trial)

        def main() -> None:
            # So that Hydra raises instead of printing a trace and leaving.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with _logging_to_console():
                try:
                    under_hydra()
                except Exception as error:  # from Hydra itself: a group or a key that does not exist
                    _leave(error)

        return main

    return decorate


@contextmanager
def _logging_to_console() -> Iterator[None]:
    first = (launched_rank() or (0, 1))[0] == 0  # of several processes only one speaks
    log = logging.getLogger("thaw")
    console: logging.Handler = logging.StreamHandler(sys.stdout) if first else logging.NullHandler()
    log.setLevel(logging.INFO)
    log.addHandler(console)
    try:
        yield
    finally:
        log.removeHandler(console)


def _leave(error: Exception) -> NoReturn:
    if isinstance(error, ProcessesFailedError):
        if not error.traceback_printed:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    if not reports(error):  # another process of this run does
        sys.exit(1)
    # Lightning's own error for wrong settings goes by its name: importing it would make --help wait.
    users = isinstance(error, USER_ERRORS) or type(error).__name__ == "MisconfigurationException" or is_lost(error)
    traceback_printed = bool(os.environ.get("THAW_TRACEBACK")) or not users
    waited_for = report_to_parent(_message(error), traceback_printed)
    if traceback_printed:
        raise error
    sys.exit(1 if waited_for else f"error: {_message(error)}")


def _message(error: BaseException) -> str:
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} is missing: type {error.full_key}=..."
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"Hydra does not understand {error.override}: put the value into quotes of its own, \"{key}='{value}'\""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if is_lost(error):
        return "another process of this run ended without a word: killed, or out of memory?"
    return str(error) or type(error).__name__
