"""Hugging Face's hub on a machine that does not reach it."""

import socket
import threading

import pytest

from thaw.models import hub as module
from thaw.models.hub import hub, is_reachable, why_not

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def address() -> str:
    """An address where nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "getproxies", dict)
    is_reachable.cache_clear()


def test_a_hub_that_does_not_answer_is_not_asked_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert why_not(OSError("offline mode is enabled")) == f"{address} cannot be reached"


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with hub():
            assert not constants.HF_HUB_OFFLINE
        assert why_not(OSError("404: no such file\nmore")) == "404: no such file"


def test_behind_a_proxy_the_hub_is_taken_to_be_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "getproxies", lambda: {"https": "http://proxy"})
    assert is_reachable(address)


def test_a_look_up_that_hangs_does_not_hang_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait()
        raise OSError("nobody")

    monkeypatch.setattr(module, "create_connection", hang)
    monkeypatch.setattr(module, "SECONDS", 0.01)
    assert not is_reachable("https://hub.invalid")
    released.set()
