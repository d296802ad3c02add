"""What a command prints about an error: one message if the user can fix it, else a shortened traceback."""

import os
import sysconfig
from itertools import groupby
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException, extract_tb, format_exception
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from thaw.config.hydra_errors import explain
from thaw.distributed.launch import ProcessesFailedError
from thaw.distributed.ranks import is_peer_lost
from thaw.errors import UserError
from thaw.faults import fault

TRACEBACK_VARIABLE = "THAW_TRACEBACK"
PACKAGE = Path(__file__).resolve().parents[1]
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SITE_PACKAGES = ("site-packages", "dist-packages")
KEYS_OF_DATA = {"train": "data.", "check": "data.", "predict": ""}
"""What comes before `batch_size` and `num_workers` on the command line; `+data.` where the run's own are changed."""
FEWEST_FRAMES = 3
"""Number of last frames that a traceback shows if all of them are of installed packages."""


def report(error: BaseException) -> str:
    """Text for the console: `error: <message>`, or the traceback."""
    if os.environ.get(TRACEBACK_VARIABLE):
        return "".join(format_exception(error)).rstrip()
    if is_user_error(error):
        return f"error: {message(error)}"
    return short_traceback(error)


def is_user_error(error: BaseException) -> bool:
    """Return whether the message alone says what the user has to change, so that a traceback would only distract."""
    if fault(error) is not None:
        return True
    if isinstance(error, OSError):  # files that thaw or Hydra could not read or write; the message names them
        frames = [frame for frame in extract_tb(error.__traceback__) if _package(frame) != "python"]
        return bool(frames) and (_is_own_frame(frames[-1]) or _package(frames[-1]) == "hydra")
    # By name, because importing Lightning would make --help wait.
    is_misconfiguration = type(error).__name__ == "MisconfigurationException"
    if isinstance(error, ValueError | RuntimeError) and explain(error):  # Hydra's, of a plain type
        return True
    user_errors = (UserError, FloatingPointError, HydraException, OmegaConfBaseException, ProcessesFailedError)
    return isinstance(error, user_errors) or is_misconfiguration or is_peer_lost(error)


def message(error: BaseException) -> str:
    """Say in one message what went wrong and what to type."""
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} is missing: type {error.full_key}=..."
    if isinstance(error, HydraException | ValueError | RuntimeError) and (text := explain(error)):
        return text
    command = HydraConfig.get().job.config_name if HydraConfig.initialized() else "train"
    if (words := fault(error, KEYS_OF_DATA.get(command or "", "+data."))) is not None:
        elsewhere = isinstance(error, OSError) and command in ("evaluate", "predict", "export")
        return f"{words}, or name another: output=..." if elsewhere else words
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if is_peer_lost(error):
        return "another process of this run ended without an error message: killed, or out of memory?"
    if isinstance(error, InterpolationKeyError):
        return f"a ${{...}} stands for the value of another key. {str(error).splitlines()[0]}"
    if is_user_error(error):
        return str(error) or type(error).__name__
    return "".join(TracebackException.from_exception(error).format_exception_only()).strip()


def short_traceback(error: BaseException) -> str:
    """Format the traceback with the frames of installed packages folded; those of thaw and of the user stay."""
    summary = TracebackException.from_exception(error)
    _fold(summary)
    hint = f"(train.log has the whole traceback of a run; {TRACEBACK_VARIABLE}=1 prints it)"
    return f"{''.join(summary.format())}{hint}"


def _fold(summary: TracebackException | None) -> None:
    if summary is not None:
        summary.stack = _FoldedStack(summary.stack)
        _fold(summary.__cause__)
        _fold(summary.__context__)


class _FoldedStack(StackSummary):
    def format(self, **options: Any) -> list[str]:
        """Lines of the shown frames, and one line for each run of others."""
        is_shown = [_package(frame) is None for frame in self]
        if not any(is_shown):
            is_shown[-FEWEST_FRAMES:] = [True] * len(is_shown[-FEWEST_FRAMES:])
        lines: list[str] = []
        for shown, pairs in groupby(zip(is_shown, self, strict=True), key=lambda pair: pair[0]):
            frames = [frame for _, frame in pairs]
            if shown:
                lines += [self.format_frame_summary(frame, **options) for frame in frames]
            else:
                names = ", ".join(dict.fromkeys(filter(None, map(_package, frames))))
                lines.append(f"  ... {len(frames)} frame{'s' * (len(frames) > 1)} of {names}\n")
        return lines


def _is_own_frame(frame: FrameSummary) -> bool:
    return PACKAGE in Path(frame.filename).parents


def _package(frame: FrameSummary) -> str | None:
    """Name the installed package of a frame, "python" for the standard library, None for thaw's and the user's code."""
    file = Path(frame.filename)
    if _is_own_frame(frame):
        return None
    for name in SITE_PACKAGES:
        if name in file.parts:
            return Path(file.parts[file.parts.index(name) + 1]).stem
    is_python = STANDARD_LIBRARY in file.parents or frame.filename.startswith("<")
    return "python" if is_python else None
