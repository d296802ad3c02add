"""Fine-tune pretrained networks on labelled images and texts."""

import os
import signal
import sys

# A command is starting, which takes a second: meanwhile Ctrl-C shall print no traceback, as later (`leave_on_ctrl_c`).
_is_command = bool(sys.argv) and (sys.argv[0] == "-m" or os.path.basename(sys.argv[0]).startswith("thaw-"))
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__version__ = "0.1.0"
