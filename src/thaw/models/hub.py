"""Hugging Face's hub, where it cannot be reached: what is cached is loaded at once, and all else fails at once."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from socket import create_connection
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 3.0
"""How long the hub may take to answer. Its own library tries again for half a minute, for each file."""


@contextmanager
def hub() -> Iterator[None]:
    """Work offline within it if the hub does not answer."""
    from huggingface_hub import constants

    chosen = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = chosen or not is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = chosen


@cache
def is_reachable(address: str) -> bool:
    """Whether a server answers within `SECONDS`; taken for granted behind a proxy."""
    if getproxies():
        return True
    answers = []

    def connect() -> None:
        url = urlsplit(address)
        with suppress(OSError), create_connection((str(url.hostname), url.port or 443), SECONDS):
            answers.append(True)

    thread = Thread(target=connect, daemon=True)  # the look-up of a name has no time limit of its own
    thread.start()
    thread.join(SECONDS)
    return bool(answers)


def why_not(error: Exception) -> str:
    """One line that says why something could not be downloaded."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not is_reachable(constants.ENDPOINT):
        return f"{constants.ENDPOINT} cannot be reached"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
