from __future__ import annotations

import random
import subprocess
import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingllm.errors import (
    InputError,
    SessionConflictError,
    SessionNotFoundError,
    SnapshotError,
    StreamingLLMError,
)
from streamingllm.sessions import Message, ToolCall
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import SessionStore, Snapshot, TurnCommit
from streamingllm.sessions.transcript import ContentPart


def message(first: int, stop: int, text: str = "Hi") -> Message:
    said = Message.of_text("user", text)
    return replace(said, first=first, stop=stop, begins_turn=first % 2 == 0)


def turn(num_messages: int, num_tokens: int, *lengths: int) -> TurnCommit:
    """A turn of messages of so many tokens each, after what stays."""
    messages, at = [], num_tokens
    for length in lengths:
        messages.append(message(at, at + length))
        at += length
    ids = array("I", range(num_tokens, at))
    return TurnCommit(num_messages, num_tokens, tuple(messages), ids)


def test_it_is_a_session_store(store: SqlStore) -> None:
    any_store: SessionStore = store
    epoch = any_store.create("a", {"title": "Ä"})
    asked = Message(
        "assistant",
        (ContentPart("a"), ContentPart("b\nc")),
        tool_calls=(ToolCall("1", "add", "{}"),),
        tool_call_id="2",
        name="Ada",
        first=0,
        stop=2,
    )
    epoch = any_store.commit_turn(
        "a", epoch, TurnCommit(0, 0, (asked,), array("I", [7, 2**32 - 1]))
    )
    any_store.put_snapshot("a", epoch, Snapshot(2, b"state"))
    found = any_store.get("a")
    assert [*found.transcript] == [asked]
    assert [*found.token_log] == [7, 2**32 - 1]
    assert found.summary.metadata == {"title": "Ä"}
    assert any_store.get_snapshot("a") == Snapshot(2, b"state")
    assert any_store.list() == [found.summary]
    any_store.delete("a")
    assert any_store.list() == []
    with pytest.raises(SessionNotFoundError, match="session_id='a' is not in"):
        any_store.get("a")


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_turns_come_and_go_as_in_plain_lists(data: st.DataObject) -> None:
    with SqliteStore(Path(":memory:"), journal="delete") as store:
        epoch = store.create("a", {})
        messages: list[Message] = []
        ids: list[int] = []
        snapshot: Snapshot | None = None
        for _ in range(data.draw(st.integers(0, 8))):
            stay = data.draw(st.integers(0, len(messages)))
            num_tokens = data.draw(st.integers(messages[stay - 1].stop if stay else 0, len(ids)))
            lengths = data.draw(st.lists(st.integers(0, 5000), max_size=3))
            added = turn(stay, num_tokens, *lengths)
            epoch = store.commit_turn("a", epoch, added)
            messages[stay:], ids[num_tokens:] = added.messages, added.token_ids
            if snapshot is not None and snapshot.num_tokens > num_tokens:
                snapshot = None
            if data.draw(st.booleans()):
                snapshot = Snapshot(data.draw(st.integers(0, len(ids))), bytes(len(ids) % 9))
                store.put_snapshot("a", epoch, snapshot)
            found = store.get("a")
            assert [*found.transcript] == messages
            assert [*found.token_log] == ids
            assert store.get_snapshot("a") == snapshot
            assert found.summary.epoch == epoch


def test_the_epoch_keeps_a_second_writer_out(
    store: SqlStore, open_store: Callable[[], SqlStore]
) -> None:
    epoch = store.create("a", {})
    other = open_store()
    assert other.commit_turn("a", epoch, turn(0, 0, 3)) == 1
    for write in (
        lambda: store.commit_turn("a", epoch, turn(0, 0, 5)),
        lambda: store.put_snapshot("a", epoch, Snapshot(0, b"")),
    ):
        with pytest.raises(SessionConflictError, match="another writer has changed it"):
            write()
    assert len(other.get("a").token_log) == 3
    with pytest.raises(SessionConflictError, match="session_id='a' exists"):
        store.create("a", {})


@pytest.mark.parametrize(
    "wrong",
    [
        turn(1, 0, 3),
        turn(0, 1, 3),
        turn(-1, 0, 3),
        TurnCommit(0, 0, (message(0, 4),), array("I", [1, 2, 3])),
    ],
)
def test_a_turn_that_does_not_fit_changes_nothing(wrong: TurnCommit, store: SqlStore) -> None:
    epoch = store.create("a", {})
    with pytest.raises(InputError, match="do not fit"):
        store.commit_turn("a", epoch, wrong)
    with pytest.raises(InputError, match="num_tokens=1 of the snapshot is not 0 to 0"):
        store.put_snapshot("a", epoch, Snapshot(1, b""))
    assert store.get("a").summary.epoch == epoch


def test_a_transaction_is_whole_or_nothing(store: SqlStore) -> None:
    epoch = store.create("a", {})
    with pytest.raises(ZeroDivisionError), store.transaction():
        epoch = store.commit_turn("a", epoch, turn(0, 0, 3))
        store.put_snapshot("a", epoch, Snapshot(3, b"state"))
        raise ZeroDivisionError
    assert len(store.get("a").token_log) == 0
    assert store.get_snapshot("a") is None
    assert store.commit_turn("a", 0, turn(0, 0, 3)) == 1


class CountingVFS(apsw.VFS):
    """The files of the system, counting the bytes that are written."""

    def __init__(self) -> None:
        super().__init__("counting", "")
        self.num_bytes = 0

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return CountingFile(self, name, flags)


class CountingFile(apsw.VFSFile):
    def __init__(self, vfs: CountingVFS, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.num_bytes += len(data)
        super().xWrite(data, offset)


def test_the_cost_of_a_save_does_not_grow_with_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = CountingVFS()
    connect = apsw.Connection

    def counted(filename: str, flags: int) -> apsw.Connection:
        return connect(filename, flags, "counting")

    monkeypatch.setattr(apsw, "Connection", counted)
    snapshot = random.Random(0).randbytes(50_000)
    path, written, changed = tmp_path / "chat", [], []
    with SqliteStore(path, journal="delete", is_searchable=False) as store:  # as a saved chat
        epoch, num_tokens = store.create("a", {}), 0
        for number in range(400):
            before, rows = vfs.num_bytes, store.database.connection.total_changes()
            with store.transaction():
                epoch = store.commit_turn("a", epoch, turn(2 * number, num_tokens, 20, 180))
                num_tokens += 200
                store.put_snapshot("a", epoch, Snapshot(num_tokens, snapshot))
            written.append(vfs.num_bytes - before)
            changed.append(store.database.connection.total_changes() - rows)
    assert len(set(changed[1:])) == 1
    # The tree of a table grows by a level now and then, which is a page more to write.
    assert max(written[300:]) <= max(written[1:50]) + 8 * 4096
    assert max(written) < 5 * len(snapshot)
    # The log itself is small: ids of four bytes, messages, and one snapshot.
    assert path.stat().st_size < num_tokens * 4 * 1.5 + 400 * 2 * 600 + 3 * len(snapshot)


def filled(path: Path) -> SqliteStore:
    store = SqliteStore(path, journal="delete")
    epoch = store.create("a", {"title": "Some title"})
    for number in range(12):
        epoch = store.commit_turn("a", epoch, turn(number, number * 50, 50))
    store.put_snapshot("a", epoch, Snapshot(600, b"state" * 2000))
    return store


def everything(path: Path) -> tuple[Any, ...]:
    with SqliteStore(path, mode="read") as store:
        found = store.get("a")
        summary = (found.summary.id, found.summary.epoch, found.summary.metadata)
        return summary, [*found.transcript], [*found.token_log], store.get_snapshot("a")


def test_damage_is_found_and_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    filled(path).close()
    content, whole = path.read_bytes(), everything(path)
    chance, refused = random.Random(0), []
    for number in range(150):
        damaged = bytearray(content)
        if number < 120:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert everything(path) == whole  # an unused byte
        except StreamingLLMError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert all("\n" not in line and str(path) in line for line in refused)


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE sessions SET metadata = '{}'",
        "UPDATE sessions SET num_tokens = num_tokens - 50",
        "UPDATE messages SET body = replace(body, 'Hi', 'No') WHERE number = 3",
        "DELETE FROM messages WHERE number = 11",
        "DELETE FROM messages WHERE number = 3",
        "DELETE FROM tokens WHERE first = 550",
        "UPDATE tokens SET ids = zeroblob(200) WHERE first = 50",
        "UPDATE messages SET body = 'x' WHERE number = 0",
        "UPDATE parts SET content = zeroblob(10000)",
        "UPDATE snapshots SET num_tokens = 500",
        "DROP TABLE tokens",
        "PRAGMA user_version = 7",
        "PRAGMA application_id = 7",
    ],
)
def test_tampering_is_found(tamper: str, tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    filled(path).close()
    database = apsw.Connection(str(path))
    database.execute(tamper)
    database.close()
    with pytest.raises(SnapshotError, match=str(path)) as caught:
        everything(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"Hi", b"SQLite format 3\0", bytes(5000)])
def test_foreign_files_are_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=str(path)):
        SqliteStore(path, mode="read")
    assert path.read_bytes() == content
    other = tmp_path / "other"
    apsw.Connection(str(other)).execute("CREATE TABLE notes (text)")
    with pytest.raises(SnapshotError, match="holds no sessions"):
        SqliteStore(other)
    with pytest.raises(SnapshotError, match="cannot be read"):
        SqliteStore(tmp_path / "missing", mode="read")
    with pytest.raises(SnapshotError, match="cannot be written"):
        SqliteStore(tmp_path / "none" / "missing")


@pytest.mark.parametrize("module", ["store", "sqlite_store", "conversation_file", "message_json"])
def test_stores_need_no_torch(module: str) -> None:
    code = f"import sys, streamingllm.sessions.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
