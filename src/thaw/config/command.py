"""Runs a command under Hydra, prints its errors for people, and leaves with exit code 1 after one."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw.arguments import for_hydra
from thaw.config.conf_folder import CONF, conf_file
from thaw.config.failures import is_user_error, message, report
from thaw.config.overrides import require_known, with_new_plan_keys
from thaw.config.sweep_summary import SweepSummary
from thaw.config.values import require_valid
from thaw.console import outlive_readers, print_anything
from thaw.distributed.environment import launched_rank
from thaw.distributed.launch import ProcessesFailedError
from thaw.distributed.ranks import leave_message, reports
from thaw.errors import UserError
from thaw.runs.files import PRUNED_FILE
from thaw.runs.trials import read_trial, record_failure
from thaw.training.stop_signals import leave_on_ctrl_c

HYDRA_OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
)


ALIASES = {"summary": {"sweep": "folder"}, "soup": {"sweep": "folder", "run": "folder"}}
"""Other names of keys by command, for names that are groups of Hydra (`sweep`)."""


def command(
    config_name: str, as_typed: str | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of the composed configuration into a command line: `python -m thaw.<config_name> key=value ...`.

    Hydra parses the values, but not that of the key `as_typed`, which is a text with any characters. In a sweep a trial
    that fails is recorded, and the others go on. THAW_TRACEBACK=1 prints whole tracebacks.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @wraps(task)
        def run(cfg: DictConfig) -> Any:
            try:
                require_read(cfg, config_name)
                require_valid(cfg)
                return task(cfg)
            except Exception as error:
                if not is_trial():
                    _leave(error)
                _record(error)

        under_hydra = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)

        def main() -> None:
            outlive_readers()
            print_anything()
            _require_options(sys.argv[1:])
            sys.argv[1:] = with_new_plan_keys([with_own_key(config_name, word) for word in sys.argv[1:]])
            if {"-m", "--multirun"} & set(sys.argv) and any(word.startswith("run_folder=") for word in sys.argv):
                sys.exit("error: run_folder=... names one folder, and -m needs one a trial: type hydra.sweep.dir=...")
            os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a traceback and leaves
            if "" not in sys.path:  # a console script does not see the user's own modules, as `python -m` does
                sys.path.insert(0, os.getcwd())
            sys.argv = [_quoted(argument, as_typed) for argument in sys.argv]
            # Files of conf/hydra/launcher complete those of their plugins, which have the same names.
            warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
            with logging_to_console(), leave_on_ctrl_c():
                try:
                    under_hydra()
                except SystemExit:
                    SweepSummary.write_unfinished()
                    raise
                except Exception as error:  # from Hydra itself: a group or a key that does not exist
                    _leave(error)

        return main

    return decorate


def is_trial() -> bool:
    """Whether this is a trial of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _require_options(words: list[str]) -> None:
    """Exit with a message for a word such as --lr, as other programs have them."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    if unknown := [name for name in names if not any(option.startswith(name) for option in HYDRA_OPTIONS)]:
        sys.exit(f"error: there is no option {unknown[0]}: settings are typed as key=value, and --help lists the keys")


def require_read(cfg: DictConfig, config_name: str) -> None:
    """Raise UserError for a typed key that nothing reads, see `require_known`, and for a grid without -m.

    `config_name`: the command.
    """
    hydra_config = HydraConfig.get()
    groups = {re.split("[/@]", group)[0] for group in hydra_config.runtime.choices}
    own = OmegaConf.load(conf_file(f"{config_name}.yaml"))
    require_known(hydra_config.overrides.task, {*map(str, own), *groups}, cfg)
    is_process_of_trial = "TORCHELASTIC_RUN_ID" in os.environ
    is_sweep = hydra_config.mode == RunMode.MULTIRUN or is_process_of_trial
    if (grid := hydra_config.runtime.choices.get("sweep")) and not is_sweep:
        raise UserError(f"sweep={grid} is a grid of runs: type -m sweep={grid}")


def with_own_key(config_name: str, word: str) -> str:
    """A word that was typed after a command, with the key that its configuration has for it, see `ALIASES`."""
    key, equals, value = word.partition("=")
    return f"{ALIASES.get(config_name, {}).get(key, key)}{equals}{value}"


def _quoted(argument: str, as_typed: str | None) -> str:
    """Quote the value for Hydra if `argument` is of the key `as_typed`."""
    key, equals, value = argument.partition("=")
    return for_hydra(key, value) if equals and key.lstrip("+") == as_typed else argument


class _ConsoleHandler(logging.Handler):
    """Prints to what is `sys.stdout` at that time: a progress bar puts something there that prints above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message. What cannot be printed, because of its encoding or a closed pipe, ends no run.

        Of a trial of a sweep only warnings are printed: `train.log` has the rest.
        """
        if record.levelno < logging.WARNING and is_trial():
            return
        with suppress(Exception):
            print(self.format(record), flush=True)


@contextmanager
def logging_to_console() -> Iterator[None]:
    """Print thaw's messages while the context lasts."""
    is_first = (launched_rank() or (0, 1))[0] == 0  # only one of several processes prints
    log = logging.getLogger("thaw")
    console: logging.Handler = _ConsoleHandler() if is_first else logging.NullHandler()
    log.setLevel(logging.INFO)
    log.addHandler(console)
    try:
        yield
    finally:
        log.removeHandler(console)


def _record(error: Exception) -> None:
    """Record that this trial of a sweep failed, whatever the error; print that it was pruned."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if (folder / PRUNED_FILE).exists():
        print(f"trial {folder.name} was pruned: {read_trial(folder.name, folder).message}", flush=True)
        return
    if not is_user_error(error):
        print(report(error), file=sys.stderr)
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task)
    record_failure(folder, overrides, message(error))


def _leave(error: Exception) -> NoReturn:
    """Print the error, once for all processes of the run, and exit."""
    if isinstance(error, ProcessesFailedError):
        if not error.printed:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    if not reports(error):  # another process of this run prints it
        sys.exit(1)
    leave_message(message(error))
    sys.exit(report(error))  # prints it to stderr; exit code 1
