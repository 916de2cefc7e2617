from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable

import pytest

from streamingllm.errors import (
    ConfigError,
    SessionBusyError,
    SessionConflictError,
    SessionNotFoundError,
    StaleLeaseError,
)
from streamingllm.sessions.session_lease import JournalledTurn, SessionLeases
from streamingllm.sessions.sql_leases import SqlLeases
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.store import Snapshot, TurnCommit

NOTHING = TurnCommit(0, 0, (), array("I"))


def test_whoever_takes_the_lease_shuts_out_the_earlier_holder(
    open_store: Callable[[], SqlStore],
) -> None:
    first, second = open_store(), open_store()
    old: SessionLeases = SqlLeases(first, "old")
    new: SessionLeases = SqlLeases(second, "new")
    first.create("s")
    epoch = old.hold("s")
    assert old.hold("s") == epoch  # it is there
    old.begin_turn("s", epoch, None)
    old.end_turn("s")
    taken = new.hold("s")
    assert taken == epoch + 1
    with pytest.raises(StaleLeaseError, match=f"epoch={epoch} of session 's' is not {taken}"):
        old.begin_turn("s", epoch, None)
    for write in (
        lambda: first.commit_turn("s", epoch, NOTHING),
        lambda: first.put_snapshot("s", epoch, Snapshot(0, b"stale")),
    ):
        with pytest.raises(SessionConflictError, match="another writer has changed it"):
            write()
    new.begin_turn("s", taken, None)
    second.commit_turn("s", taken, NOTHING)
    assert second.get_snapshot("s") is None
    with pytest.raises(StaleLeaseError):  # it has committed since
        new.begin_turn("s", taken, None)


def test_a_running_turn_bars_others_until_it_ends_or_its_holder_is_dead(
    open_store: Callable[[], SqlStore],
) -> None:
    store = open_store()
    runs, waits = SqlLeases(store, "runs"), SqlLeases(open_store(), "waits")
    store.create("s")
    runs.begin_turn("s", runs.hold("s"), None)
    with pytest.raises(SessionBusyError, match="a turn that runs on runs"):
        waits.hold("s")
    with pytest.raises(SessionBusyError):
        waits.hold("s", {"somebody else"})
    epoch = waits.hold("s", {"runs"})
    waits.begin_turn("s", epoch, None)
    with pytest.raises(SessionBusyError):
        runs.hold("s")
    runs.end_turn("s")  # of a lease that it has lost
    with pytest.raises(SessionBusyError):
        runs.hold("s")
    waits.end_turn("s")
    assert runs.hold("s") == epoch + 1


def test_a_turn_whose_lease_is_renewed_bars_others_as_long_again(
    open_store: Callable[[], SqlStore],
) -> None:
    store = open_store()
    runs = SqlLeases(store, "runs", lease_seconds=0.001)
    waits = SqlLeases(open_store(), "waits")
    store.create("s")
    epoch = runs.hold("s")
    runs.begin_turn("s", epoch, None)
    time.sleep(0.01)
    runs.lease_seconds = 1000.0
    runs.renew()
    with pytest.raises(SessionBusyError):
        waits.hold("s")
    runs.lease_seconds = 0.001
    runs.renew()
    time.sleep(0.01)
    assert waits.hold("s") == epoch + 1  # its holder has not renewed it
    with pytest.raises(ConfigError, match="lease_seconds=0"):
        SqlLeases(store, lease_seconds=0)


def test_of_holders_at_once_one_begins_each_turn(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    store.create("s")
    begun: list[int] = []

    def work(leases: SqlLeases, own: SqlStore) -> None:
        for _ in range(10):
            try:
                epoch = leases.hold("s")
                leases.begin_turn("s", epoch, None)
                begun.append(own.commit_turn("s", epoch, NOTHING))
                leases.end_turn("s")
            except SessionConflictError:
                continue

    holders = [(own := open_store(), SqlLeases(own)) for _ in range(3)]
    threads = [threading.Thread(target=work, args=(leases, own)) for own, leases in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == len(set(begun)) > 0


def test_a_journalled_turn_is_found_by_every_holder_until_it_is_old(
    open_store: Callable[[], SqlStore],
) -> None:
    store = open_store()
    leases = SqlLeases(store, "one")
    store.create("s")
    turn = JournalledTurn("turn", "s", 4, 3, 2, is_edit=True)
    epoch = leases.hold("s")
    leases.begin_turn("s", epoch, turn)
    leases.begin_turn("s", epoch, JournalledTurn("turn", "s", 6, 6, 1))  # attempted again
    other = SqlLeases(open_store(), "other", journal_seconds=-1.0)
    assert other.find_turn("turn") == turn
    assert other.find_turn("missing") is None
    other.begin_turn("s", other.hold("s", {"one"}), JournalledTurn("next", "s", 0, 0, 1))
    assert other.find_turn("turn") is None


def test_a_session_that_is_not_there_has_no_lease(store: SqlStore) -> None:
    leases = SqlLeases(store)
    for attempt in (lambda: leases.hold("s"), lambda: leases.begin_turn("s", 0, None)):
        with pytest.raises(SessionNotFoundError, match="session_id='s'"):
            attempt()
