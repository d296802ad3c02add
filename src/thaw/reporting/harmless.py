"""Keeps what only shows a run from ending it."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

log = logging.getLogger(__name__)


def harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """Decorate a hook of a callback so that its errors are logged, with their traceback, and training goes on."""

    @wraps(hook)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except Exception:
            log.warning("%s failed; the run goes on", hook.__qualname__, exc_info=True)

    return guarded
