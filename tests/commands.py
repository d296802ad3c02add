"""Types commands in this process. Imports no torch, so that a test can see whether a command does."""

import contextlib
import io
import json
import shlex
import sys
from importlib import import_module

from hydra.core.global_hydra import GlobalHydra


def refused(command: str) -> str:
    """Type a command that is refused; return its message. Fails if it goes through, or leaves in another way."""
    module, *arguments = shlex.split(command.removeprefix("python -m "))
    sys.argv = [module, *arguments]
    printed = io.StringIO()
    GlobalHydra.instance().clear()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            import_module(module).main()
    except SystemExit as leaving:
        if isinstance(leaving.code, str):  # Python prints it and leaves with exit code 1
            return leaving.code
    raise AssertionError(f"{command} goes through:\n{printed.getvalue()}")


if __name__ == "__main__":  # commands as JSON in, their messages and whether torch was imported out
    messages = [refused(command) for command in json.load(sys.stdin)]
    json.dump([messages, "torch" in sys.modules], sys.stdout)
