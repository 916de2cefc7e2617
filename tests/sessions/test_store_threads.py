"""One store, several threads that write: nothing is lost, and one writer at a time wins."""

from __future__ import annotations

import random
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from streamingllm.errors import SessionConflictError
from streamingllm.sessions.response_store import ResponseStore
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot, TurnCommit
from streamingllm.sessions.transcript import Message
from tests.sessions.test_response_store import record

NUM_THREADS = 6
NUM_TURNS = 25


def commit(store: SqliteStore, session_id: str, epoch: int, number: int, name: str) -> int:
    """Commit a turn of one message and one token; return the new epoch."""
    message = replace(Message.of_text("user", f"{name} {number}"), first=number, stop=number + 1)
    turn = TurnCommit(number, number, (message,), array("I", [number]))
    return store.commit_turn(session_id, epoch, turn)


def texts(store: SqliteStore, session_id: str) -> list[str]:
    return [message.text for message in store.get(session_id, "").transcript]


def opened(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "sessions.sqlite", snapshots=folder / "snapshots")


def test_threads_that_write_sessions_of_their_own_lose_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    responses = ResponseStore(store.database)

    def write(thread: int) -> None:
        rng = random.Random(thread)
        own = f"s{thread}"
        epoch = store.create(own, {}, owner="")
        for number in range(NUM_TURNS):
            epoch = commit(store, own, epoch, number, own)
            store.put_snapshot(own, epoch, Snapshot(number + 1, f"{own} {number}".encode()))
            responses.put(record(f"{own}-{number}"))
            if rng.random() < 0.3:
                gone = f"gone{thread}-{number}"
                store.create(gone, {}, owner="")
                store.delete(gone, "")
            assert len(texts(store, own)) == number + 1

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(write, range(NUM_THREADS)))
    store.close()
    store = opened(tmp_path)
    assert store.count() == NUM_THREADS
    assert ResponseStore(store.database).count() == NUM_THREADS * NUM_TURNS
    for thread in range(NUM_THREADS):
        own = f"s{thread}"
        assert texts(store, own) == [f"{own} {number}" for number in range(NUM_TURNS)]
        snapshot = store.get_snapshot(own)
        assert snapshot == Snapshot(NUM_TURNS, f"{own} {NUM_TURNS - 1}".encode())
    store.close()


def test_of_threads_that_write_one_session_one_wins_each_turn(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create("shared", {}, owner="")

    def write(thread: int) -> list[str]:
        won: list[str] = []
        while True:
            stored = store.get("shared", "")
            number = len(stored.transcript)
            if number >= NUM_TURNS:
                return won
            try:
                commit(store, "shared", stored.summary.epoch, number, str(thread))
            except SessionConflictError:
                continue
            won.append(f"{thread} {number}")

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        won = [text for texts in pool.map(write, range(NUM_THREADS)) for text in texts]
    store.close()
    store = opened(tmp_path)
    assert sorted(texts(store, "shared")) == sorted(won)
    assert len(won) == NUM_TURNS
    store.close()
