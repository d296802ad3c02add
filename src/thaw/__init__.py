"""Fine-tune pretrained networks on labelled images and texts."""

import os
import signal
import sys
from importlib import import_module
from typing import Any

# A command is starting, which takes a second: meanwhile Ctrl-C shall print no traceback, as later (`leave_on_ctrl_c`).
_is_command = bool(sys.argv) and (sys.argv[0] == "-m" or os.path.basename(sys.argv[0]).startswith("thaw-"))
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`thaw.fit` and `thaw.Run`, imported when they are used: commands start without them."""
    if name in ("fit", "Run"):
        return getattr(import_module("thaw.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
