"""Two processes of a run, here two objects that share a store."""

from threading import Thread

import pytest
from torch.distributed import HashStore

from thaw.distributed import ranks
from thaw.distributed.ranks import Ranks, is_lost


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
    places = {two[0]: ("0", 0), two[1]: ("0", 1)}
    events: list[tuple[str, bool]] = []

    def turn(process: Ranks) -> None:
        for _ in range(2):
            monkeypatch.setattr(ranks, "node_and_local_rank", lambda: places[process])
            with process.first_per_node() as is_first:
                events.append(("begins", is_first))
                events.append(("ends", is_first))

    other = Thread(target=turn, args=(two[1],))
    other.start()
    assert not events, "it waits"
    turn(two[0])
    other.join()
    assert [is_first for event, is_first in events if event == "begins"] == [True, True, False, False]
    with Ranks().first_per_node() as is_first:
        assert is_first


def test_a_lost_connection_is_told_from_other_faults() -> None:
    assert is_lost(RuntimeError("[pair.cc:538] Connection closed by peer [127.0.0.1]:1234"))
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost(OSError("Connection reset by peer"))
