"""Two processes of a run, here two objects that share a store."""

from threading import Thread, current_thread

import pytest
from torch.distributed import HashStore

from thaw.distributed import ranks
from thaw.distributed.ranks import Ranks, is_peer_lost


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[Ranks]:
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.01)
    store = HashStore()
    return [Ranks(rank, 2, store) for rank in range(2)]


def test_the_first_decides_for_all_and_once_for_each_question(two: list[Ranks]) -> None:
    first, other = two
    answers = iter([["a", None], {"b": 1.5}])
    assert [first.as_first(lambda: next(answers)) for _ in range(2)] == [["a", None], {"b": 1.5}]

    def never() -> None:
        raise AssertionError("asked twice")

    assert [other.as_first(never) for _ in range(2)] == [["a", None], {"b": 1.5}]
    assert Ranks().as_first(lambda: "alone") == "alone"


@pytest.mark.parametrize("earlier", [0, 1])
def test_only_the_first_to_fail_reports_and_does_so_whenever_it_is_asked(two: list[Ranks], earlier: int) -> None:
    assert two[earlier].reports()
    assert not two[1 - earlier].reports()
    assert two[earlier].reports()
    assert Ranks().reports()


def test_what_all_raise_the_first_process_reports(two: list[Ranks], monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = two
    monkeypatch.setattr(ranks, "MOST_SECONDS", 0.05)
    other.let_the_first_report()  # it waits in vain, and not for ever
    first.reports()
    monkeypatch.setattr(ranks, "MOST_SECONDS", 600)
    other.let_the_first_report()
    assert not other.reports()


def test_the_first_process_of_a_machine_goes_before_the_others(
    two: list[Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[int, bool]] = []

    def go(process: Ranks) -> None:
        for turn in range(2):
            with process.first_per_node() as is_first:
                turns.append((turn, is_first))

    other = Thread(target=go, args=(two[1],))
    monkeypatch.setattr(ranks, "node_and_local_rank", lambda: ("0", int(current_thread() is other)))
    other.start()
    go(two[0])
    other.join()
    assert turns.index((0, True)) < turns.index((0, False))
    assert turns.index((1, True)) < turns.index((1, False))
    with Ranks().first_per_node() as is_first:
        assert is_first


def test_a_lost_connection_is_told_from_other_faults() -> None:
    assert is_peer_lost(RuntimeError("[pair.cc:538] Connection closed by peer [127.0.0.1]:1234"))
    assert not is_peer_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_peer_lost(OSError("Connection reset by peer"))
