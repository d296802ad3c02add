"""Makes the imports of a command faster."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_imports() -> Iterator[None]:
    """Import torch and what is built on it without garbage collection, which takes a fifth of that time.

    Their 550,000 objects are left out of it afterwards, too: each full pass would take 0.3 s longer. Does so only once
    in a process: what an earlier trial of a sweep left behind is still collected.

    Commands import inside their functions, and not at the top, so that `--help` does not wait for torch.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.disable()
    if sys.stderr.isatty():
        print("loading libraries ...", end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            print(" " * 21, end="\r", file=sys.stderr, flush=True)
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # at exit libraries look for what was not freed, and complain
