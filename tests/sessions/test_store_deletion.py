"""Deleted means gone from the disk; one process serves a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from streamingllm.errors import SessionConflictError, SessionNotFoundError, SnapshotError
from streamingllm.sessions import Message
from streamingllm.sessions.response_store import ResponseRecord, ResponseStore
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot, TurnCommit

SECRET = "xylophonequartz"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "sessions.db", snapshots=tmp_path / "snapshots") as store:
        yield store


def fill(store: SqliteStore, session_id: str, text: str) -> None:
    epoch = store.create(session_id, {"title": text}, owner="ada", settings={"system": text})
    said = tuple(Message.of_text("user", f"{text} {number} " + "." * 3000) for number in range(5))
    ids = array("I", range(100))
    epoch = store.commit_turn(session_id, epoch, TurnCommit(0, 0, said, ids))
    store.put_snapshot(session_id, epoch, Snapshot(100, text.encode()))
    ResponseStore(store.database).put(
        ResponseRecord(f"r{session_id}", "ada", session_id, None, "", text, text, 0.0, 1e12)
    )


def holds(folder: Path, text: str) -> list[str]:
    """Names of the files that hold a text."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sorted({file.name for file in files if text.encode() in file.read_bytes()})


def test_a_deleted_session_is_gone_from_the_disk(store: SqliteStore, tmp_path: Path) -> None:
    fill(store, "other", "kept")
    fill(store, "a", SECRET)
    fill(store, "b", "kept too")
    assert holds(tmp_path, SECRET)
    store.delete("a", "ada")
    assert holds(tmp_path, SECRET) == []
    assert holds(tmp_path, SECRET[:8]) == []  # the index keeps beginnings of words
    assert sorted(s.id for s in store.list("ada", query="kept")) == ["b", "other"]


def test_an_expired_session_is_gone_from_the_disk(store: SqliteStore, tmp_path: Path) -> None:
    fill(store, "a", SECRET)
    assert store.expire(time.time(), 1000.0) == 0
    assert store.expire(time.time() + 1001.0, 1000.0) == 1
    assert store.count() == 0
    assert holds(tmp_path, SECRET) == []


def test_messages_that_are_taken_back_are_gone_from_the_disk(
    store: SqliteStore, tmp_path: Path
) -> None:
    epoch = store.create("a", owner="ada")
    said = tuple(Message.of_text("user", f"{text} " + "." * 3000) for text in ("kept", SECRET))
    epoch = store.commit_turn("a", epoch, TurnCommit(0, 0, said, array("I", range(9))))
    assert holds(tmp_path, SECRET)
    store.commit_turn("a", epoch, TurnCommit(1, 4))
    assert holds(tmp_path, SECRET) == []
    assert [message.text[:4] for message in store.get("a").transcript] == ["kept"]


def test_a_reader_delays_the_wiping_of_the_log(store: SqliteStore, tmp_path: Path) -> None:
    fill(store, "a", SECRET)
    reader = apsw.Connection(str(store.path))
    reader.execute("BEGIN; SELECT count(*) FROM sessions").fetchall()
    store.database.connection.set_busy_timeout(0)
    store.delete("a")
    assert holds(tmp_path, SECRET)
    reader.execute("COMMIT")
    reader.close()
    store.create("b")
    assert holds(tmp_path, SECRET) == []


def test_a_session_of_another_owner_is_a_missing_one(store: SqliteStore) -> None:
    fill(store, "a", "kept")
    attempts: list[Callable[[str], object]] = [
        lambda session_id: store.get(session_id, "bob"),
        lambda session_id: store.summary(session_id, "bob"),
        lambda session_id: store.delete(session_id, "bob"),
        lambda session_id: store.fork(session_id, "bob", "new", 1, 1, settings={}),
        lambda session_id: store.update_metadata(session_id, "bob", {}),
        lambda session_id: store.branches(session_id, "bob"),
    ]
    for attempt in attempts:
        messages = []
        for session_id in ("a", "missing"):
            with pytest.raises(SessionNotFoundError) as caught:
                attempt(session_id)
            messages.append(str(caught.value).replace(repr(session_id), "..."))
        assert messages[0] == messages[1]
    assert store.list("bob") == []
    assert store.list("bob", query="kept") == []
    assert store.summary("a", "ada").metadata == {"title": "kept"}


OPEN = """
import sys
from pathlib import Path
from streamingllm.errors import SessionConflictError
from streamingllm.sessions.sqlite_store import SqliteStore
try:
    SqliteStore(Path(sys.argv[1]), is_exclusive=True).close()
except SessionConflictError as error:
    sys.exit(str(error))
"""


def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"

    def open_elsewhere() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", OPEN, os.fspath(path)]
        return subprocess.run(command, capture_output=True, text=True)

    with SqliteStore(path, is_exclusive=True):
        refused = open_elsewhere()
        assert refused.returncode == 1
        assert "is served by another process; stop that one" in refused.stderr
        with pytest.raises(SessionConflictError, match="name another data folder"):
            SqliteStore(path, is_exclusive=True)
    assert open_elsewhere().returncode == 0
    with pytest.raises(SnapshotError):
        SqliteStore(tmp_path, is_exclusive=True)
    (tmp_path / "no database").write_text("Hi")
    for _ in range(2):  # a refused file is not left locked
        with pytest.raises(SnapshotError):
            SqliteStore(tmp_path / "no database", is_exclusive=True)


def test_an_unsafe_sqlite_is_refused_with_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(SnapshotError, match=r"SQLite 3\.51\.2 can lose .* install apsw 3\.51\.3"):
        SqliteStore(tmp_path / "sessions.db")
    SqliteStore(tmp_path / "chat", journal="delete").close()
